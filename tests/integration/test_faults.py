"""5,000 jobs while the network or the server fails: none lost, order kept, duplicates bounded, every result true.

A producer streams jobs of 20 chats to four partitions through a proxy; a worker, through the same proxy, records
each job and then acks it. The fault occurs three times meanwhile. The counts:

lost         accepted (or even "may be there") jobs that the worker never saw: none
disorder     first deliveries of a chat's jobs out of order: none
duplicates   messages in flight when a connection was lost: the producer's window and one message per partition
"""

from __future__ import annotations

import contextlib
import itertools
import queue
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from floodgate.broker.amqp import queue_admin, topology
from floodgate.broker.amqp.connections import Connections
from floodgate.broker.amqp.consumer import Delivery
from floodgate.broker.errors import ConfirmTimeoutError, PublishError
from floodgate.broker.messages import queue_names
from floodgate.broker.messages.publication import Publication
from rabbitmq_node.node import Node
from tests.proxy import Proxy
from tests.publishing import publish_all
from tests.waiting import until

Connect = Callable[..., Connections]
JOBS, CHATS, PARTITIONS, WINDOW = 5000, 20, 4, 200
STRIKES = (800, 2200, 3600)
PIPELINE = topology.pipeline(["b"], PARTITIONS)
PACE_SECONDS = 0.0003  # between jobs, so that a fault occurs among them


@dataclass
class Account:
    """The producer's results and the worker's deliveries. Each list belongs to one thread until that has ended."""

    accepted: set[int] = field(default_factory=set)
    uncertain: set[int] = field(default_factory=set)
    refused: set[int] = field(default_factory=set)
    seen: list[int] = field(default_factory=list)

    @property
    def duplicates(self) -> int:
        return sum(count - 1 for count in Counter(self.seen).values())

    def disorder(self) -> list[tuple[int, int]]:
        """Pairs of one chat whose first deliveries are in the wrong order, without the jobs that raised."""
        chats: dict[int, list[int]] = defaultdict(list)
        for n in dict.fromkeys(self.seen):
            if n in self.accepted:
                chats[n % CHATS].append(n)
        return [(a, b) for order in chats.values() for a, b in itertools.pairwise(order) if a > b]


class Producer(threading.Thread):
    """Streams all jobs; ``reached`` is its progress."""

    def __init__(self, connections: Connections, account: Account) -> None:
        super().__init__(name="producer", daemon=True)
        self.reached = 0
        self._publisher = connections.publisher
        self._account = account

    def run(self) -> None:
        for publication, error in publish_all(self._publisher, self._jobs()):
            n = int(publication.body)
            if error is None:
                self._account.accepted.add(n)
            elif isinstance(error, ConfirmTimeoutError):
                self._account.uncertain.add(n)
            else:
                assert isinstance(error, PublishError), error
                self._account.refused.add(n)

    def _jobs(self) -> Iterator[Publication]:
        pace = threading.Event()
        for n in range(JOBS):
            self.reached = n
            pace.wait(PACE_SECONDS)
            name = queue_names.send_queue("b", "bulk", n % CHATS % PARTITIONS)
            yield Publication("", name, b"%d" % n, f"job-{n}")


class Worker:
    """Records each job, then acks it, on its own thread like Dramatiq's."""

    def __init__(self, connections: Connections, account: Account) -> None:
        self._deliveries: queue.SimpleQueue[Delivery | None] = queue.SimpleQueue()
        self._account = account
        self._thread = threading.Thread(target=self._work, name="worker", daemon=True)
        self._thread.start()
        for n in range(PARTITIONS):
            connections.subscribe(
                queue_names.send_queue("b", "bulk", n), "worker", self._deliveries.put, lambda: PIPELINE
            )

    def _work(self) -> None:
        while (delivery := self._deliveries.get()) is not None:
            self._account.seen.append(int(delivery.body))
            delivery.ack()

    def stop(self) -> None:
        self._deliveries.put(None)
        self._thread.join(5)


def cut(proxy: Proxy, _node: Node) -> None:
    proxy.cut()


def reset(proxy: Proxy, _node: Node) -> None:
    proxy.reset()


def reset_in_mid_publish(proxy: Proxy, _node: Node) -> None:
    assert proxy.reset_after(10_001).wait(10)


def stall(proxy: Proxy, _node: Node) -> None:
    proxy.stall()
    threading.Event().wait(1)
    proxy.flow()


def half_open(proxy: Proxy, _node: Node) -> None:
    before = proxy.connections
    proxy.half_open()
    until(lambda: proxy.connections > before, seconds=20)
    proxy.drop_half_open()


def stop_app(_proxy: Proxy, node: Node) -> None:
    node.ctl("stop_app")
    node.ctl("start_app")


def sigkill(_proxy: Proxy, node: Node) -> None:
    node.kill()
    node.start()


def memory_alarm(_proxy: Proxy, node: Node) -> None:
    node.ctl("set_vm_memory_high_watermark", "absolute", "1MB")
    threading.Event().wait(1)
    node.ctl("set_vm_memory_high_watermark", "0.6")


@pytest.fixture(scope="module")
def node(rabbitmq_version: str | None) -> Iterator[Node]:
    with Node(rabbitmq_version) as node:
        yield node


# The number of connections a fault costs; each may repeat the messages in flight on it.
FAULTS = {cut: 1, reset: 1, reset_in_mid_publish: 1, stall: 0, half_open: 1, stop_app: 1, sigkill: 1, memory_alarm: 0}


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    "fault",
    [
        # Three times the heartbeat's timeout make this one the longest of all.
        pytest.param(fault, marks=pytest.mark.full_length) if fault is half_open else fault
        for fault in FAULTS
    ],
    ids=lambda fault: fault.__name__,
)
def test_faults_lose_nothing(node: Node, connect: Connect, fault: Callable[[Proxy, Node], None]) -> None:
    account = Account()
    with Proxy(node.port) as proxy, contextlib.ExitStack() as stack:
        url = proxy.url(node.url)
        # A heartbeat of 2 s, so that half-open connections are noticed within the test.
        connections = connect(url, publish_window=WINDOW, heartbeat_seconds=2, confirm_timeout_seconds=60)
        queue_admin.declare(connections, PIPELINE)
        worker = Worker(connections, account)
        stack.callback(worker.stop)
        producer = Producer(connections, account)
        producer.start()
        for strike in STRIKES:
            until(lambda strike=strike: producer.reached >= strike, seconds=60)  # type: ignore[misc]
            fault(proxy, node)
        producer.join(90)
        assert not producer.is_alive()
        until(lambda: account.accepted <= set(account.seen), seconds=30)
        connections.stop()
    assert len(account.accepted) + len(account.uncertain) + len(account.refused) == JOBS
    assert account.accepted == set(range(JOBS))  # each of these faults ends before any timeout
    assert account.disorder() == []
    assert account.duplicates <= FAULTS[fault] * len(STRIKES) * (WINDOW + PARTITIONS)
    assert queue_admin.depth(connect(node.url), [queue_names.send_queue("b", "bulk", 0)]) == {"send.b.bulk.00": 0}
    print(f"{fault.__name__}: {account.duplicates} duplicates")


def test_an_outage_beyond_the_timeout_is_reported_truthfully(node: Node, connect: Connect) -> None:
    """Jobs whose enqueue returned are there; those that raised are reported, and those never written are not there."""
    account = Account()
    with Proxy(node.port) as proxy:
        connections = connect(proxy.url(node.url), publish_window=WINDOW, confirm_timeout_seconds=1)
        queue_admin.declare(connections, PIPELINE)
        producer = Producer(connections, account)
        producer.start()
        until(lambda: producer.reached >= 1000)
        proxy.refuse()
        proxy.reset()
        until(lambda: len(account.uncertain) > 100, seconds=30)
        proxy.accept()
        producer.join(60)
        assert not producer.is_alive()
        worker = Worker(connect(node.url), account)
        until(lambda: account.accepted <= set(account.seen), seconds=30)
        worker.stop()
    assert len(account.accepted) + len(account.uncertain) == JOBS
    assert account.disorder() == []
