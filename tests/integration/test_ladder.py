"""The ladder on a real server: on time, through a restart, and with missing targets."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from datetime import timedelta

import pytest

from floodgate.broker.amqp import queue_admin, topology
from floodgate.broker.amqp.connections import Connections
from floodgate.broker.amqp.consumer import Delivery
from floodgate.broker.amqp.delay_ladder import UNIT, delayed
from floodgate.broker.messages import queue_names
from floodgate.broker.messages.publication import Publication
from rabbitmq_node.node import Node
from tests.draining import drain
from tests.services import Vhost
from tests.waiting import until

Connect = Callable[..., Connections]
PIPELINE = topology.pipeline(["b"], 2, work_queues=["mail"])
SEND = queue_names.send_queue("b", "bulk", 0)
# For a busy machine. The ladder is milliseconds late; a message that waits for those before it would be seconds late.
SLACK_SECONDS = 1.5


def park(connections: Connections, name: str, seconds: float, queue: str = SEND) -> None:
    message = Publication("", queue, name.encode(), name)
    connections.publisher.publish(delayed(message, timedelta(seconds=seconds)))


class Arrivals:
    """Acks each message and records its time. Filled by the event loop."""

    def __init__(self) -> None:
        self.times: dict[str, float] = {}

    def __call__(self, delivery: Delivery) -> None:
        self.times[str(delivery.message_id)] = time.monotonic()
        delivery.ack()


def test_delays_of_all_lengths_are_kept_without_waiting_for_each_other(declared: Vhost, connect: Connect) -> None:
    connections, arrivals = connect(declared.url), Arrivals()
    connections.subscribe(SEND, "worker", arrivals, lambda: PIPELINE)
    delays = [random.Random(7).uniform(0, 4) for _ in range(200)]
    parked: dict[str, float] = {}
    for n, seconds in enumerate(delays):
        parked[str(n)] = time.monotonic()
        park(connections, str(n), seconds)
    until(lambda: len(arrivals.times) == len(delays))
    for n, seconds in enumerate(delays):
        took = arrivals.times[str(n)] - parked[str(n)]
        assert seconds - 0.02 <= took <= seconds + UNIT.total_seconds() + SLACK_SECONDS


def test_a_message_from_the_ladder_precedes_the_backlog(declared: Vhost, connect: Connect) -> None:
    connections = connect(declared.url)
    for n in range(20):
        connections.publisher.publish(Publication("", SEND, b"{}", f"backlog-{n}"))
    park(connections, "parked", 0.1)
    until(lambda: queue_admin.depth(connections, [SEND])[SEND] == 21)
    order = [properties.message_id for properties, _ in drain(declared.url, SEND)]
    assert order.index("parked") <= 2  # 4.0 serves high before normal, 2:1


def test_a_delay_survives_a_restart(new_node: Callable[..., Node], connect: Connect) -> None:
    node = new_node().start()
    connections, arrivals = connect(node.url), Arrivals()
    queue_admin.declare(connections, PIPELINE)
    started = time.monotonic()
    park(connections, "long", 600)
    park(connections, "short", 12)
    node.restart()
    connections.subscribe(SEND, "worker", arrivals, lambda: PIPELINE)
    until(lambda: "short" in arrivals.times, seconds=30)
    # Time in which a server is down does not count for a message within a level: at most a level's length.
    assert 12 <= arrivals.times["short"] - started <= 12 + 10
    assert "long" not in arrivals.times
    waiting = queue_admin.depth(connections, [queue.name for queue in PIPELINE.queues if queue.level is not None])
    assert sum(count or 0 for count in waiting.values()) == 1


def test_a_missing_target_blocks_no_other_message_and_its_message_is_kept(declared: Vhost, connect: Connect) -> None:
    connections, arrivals = connect(declared.url), Arrivals()
    connections.subscribe(SEND, "worker", arrivals, lambda: PIPELINE)
    for n in range(5):
        park(connections, f"lost-{n}", 0.2, queue="send.gone.bulk.00")
        park(connections, f"found-{n}", 0.2)
    until(lambda: len(arrivals.times) == 5)
    until(lambda: queue_admin.depth(connections, ["dead.unroutable"]) == {"dead.unroutable": 5})
    assert {p.message_id for p, _ in drain(declared.url, "dead.unroutable")} == {f"lost-{n}" for n in range(5)}


def test_hundreds_of_jobs_for_a_full_partition_do_not_delay_others(declared: Vhost, connect: Connect) -> None:
    full = queue_names.send_queue("b", "bulk", 1)
    declared.ctl("set_policy", "full", f"^{full}$", '{"max-length": 1}')
    connections, arrivals = connect(declared.url), Arrivals()
    connections.subscribe(SEND, "worker", arrivals, lambda: PIPELINE)
    message = Publication("", full, b"{}", "refused")
    for outcome in [connections.publisher.submit_many([delayed(message, UNIT)]) for _ in range(300)]:
        assert outcome.result() == (None,)
    park(connections, "other", UNIT.total_seconds())
    until(lambda: "other" in arrivals.times)


@pytest.mark.parametrize("queue", ["mail", SEND])
def test_a_delay_of_zero_is_delivered_immediately(declared: Vhost, connect: Connect, queue: str) -> None:
    connections = connect(declared.url)
    came = threading.Event()

    def on_delivery(delivery: Delivery) -> None:
        delivery.ack()
        came.set()

    connections.subscribe(queue, "worker", on_delivery, lambda: PIPELINE)
    park(connections, "now", 0, queue)
    assert came.wait(5)
