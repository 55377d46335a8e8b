"""Two addresses of a cluster, one of which freezes, confirms nothing or goes away: everything moves to the other.

The two are proxies of one server. A frozen node looks like this from outside: it accepts connections and data, and
never answers.
"""

from __future__ import annotations

import asyncio
import random
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass

import pytest

from floodgate.broker.amqp import publisher, queue_admin, topology
from floodgate.broker.amqp.connections import Connections
from floodgate.broker.amqp.consumer import Delivery
from floodgate.broker.amqp.publisher import PublishOutcomes
from floodgate.broker.messages import queue_names
from floodgate.broker.messages.publication import Publication
from floodgate.broker.settings.model import Settings
from floodgate.producer.async_client import AsyncClient
from tests.draining import first_seen, numbers
from tests.proxy import Proxy
from tests.services import Vhost
from tests.waiting import until

Connect = Callable[..., Connections]
PIPELINE = topology.pipeline(["b"], 2, work_queues=["mail"])
SEND = queue_names.send_queue("b", "bulk", 0)
SILENCE = {"silence_timeout_seconds": 1.0}
# RabbitMQ's frame of basic.ack, which confirms a publication.
CONFIRM = re.compile(rb"\x01..\x00\x00\x00\x0d\x00\x3c\x00\x50.{9}\xce", re.DOTALL)


@dataclass
class Cluster:
    vhost: Vhost
    proxies: tuple[Proxy, Proxy]

    @property
    def url(self) -> str:
        return ",".join(proxy.url(self.vhost.url) for proxy in self.proxies)

    def used(self) -> tuple[Proxy, Proxy]:
        """The node that has the only connections, and the other one."""
        one, other = self.proxies
        assert min(one.connections, other.connections) == 0
        return (one, other) if one.connections else (other, one)


@pytest.fixture
def cluster(declared: Vhost) -> Iterator[Cluster]:
    with Proxy(declared.node.port) as one, Proxy(declared.node.port) as other:
        yield Cluster(declared, (one, other))


def submit(connections: Connections, *ids: int) -> Future[PublishOutcomes]:
    return connections.publisher.submit_many([Publication("", SEND, b"%d " % n, f"job-{n}") for n in ids])


def test_jobs_go_to_the_next_node_if_theirs_freezes(cluster: Cluster, connect: Connect) -> None:
    connections = connect(cluster.url, **SILENCE)
    assert submit(connections, 0).result(10) == (None,)
    frozen, other = cluster.used()
    frozen.stall()
    assert submit(connections, 1, 2, 3).result(20) == (None,) * 3  # the confirm time-out is longer
    assert other.connections == 1
    frozen.flow()  # what it had taken in arrives now, once more
    until(lambda: (queue_admin.depth(connections, [SEND])[SEND] or 0) >= 7)
    assert first_seen(numbers(cluster.vhost.url, SEND)) == [0, 1, 2, 3]


def test_a_queue_is_consumed_through_the_next_node_if_its_node_freezes(cluster: Cluster, connect: Connect) -> None:
    seen: list[str | None] = []

    def take(delivery: Delivery) -> None:
        seen.append(delivery.message_id)
        delivery.ack()

    connections = connect(cluster.url, **SILENCE)
    subscription = connections.subscribe(SEND, "worker", take, lambda: PIPELINE)
    until(lambda: subscription.is_registered)
    frozen, other = cluster.used()
    frozen.stall()
    until(lambda: other.connections == 1)
    frozen.cut()  # RabbitMQ would notice by its heartbeat, and a cluster's other nodes by theirs
    submit(connect(cluster.vhost.url), 0).result(10)
    until(lambda: seen == ["job-0"])


def test_a_short_task_is_begun_again_on_the_next_node(cluster: Cluster, connect: Connect) -> None:
    connections = connect(cluster.url, **SILENCE)
    assert queue_admin.depth(connections, [SEND]) == {SEND: 0}
    frozen, other = cluster.used()
    frozen.stall()
    assert queue_admin.depth(connections, [SEND]) == {SEND: 0}
    assert other.connections == 1


def test_a_node_that_answers_and_does_not_confirm_is_left(cluster: Cluster, connect: Connect) -> None:
    connections = connect(cluster.url, confirm_timeout_seconds=3)
    assert submit(connections, 0).result(10) == (None,)
    stuck, other = cluster.used()
    stuck.withhold(CONFIRM)
    assert submit(connections, 1, 2).result(20) == (None, None)
    assert other.connections == 1
    assert numbers(cluster.vhost.url, SEND) == [0, 1, 2, 1, 2]


def test_a_job_is_not_refused_before_each_address_was_tried(
    cluster: Cluster, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "AWAY_SECONDS", 0.0)
    settings = Settings(_env_file=None, rabbitmq_url=cluster.url)
    with Connections(settings, "test", patience_seconds=0.0) as connections:
        assert submit(connections, 0).result(10) == (None,)
        gone, other = cluster.used()
        other.stall()
        gone.refuse()
        gone.cut()
        until(lambda: other.connections)
        waiting = submit(connections, 1)
        other.flow()
        assert waiting.result(10) == (None,)


def test_a_connection_through_a_frozen_node_gives_up_in_time(cluster: Cluster, connect: Connect) -> None:
    for proxy in cluster.proxies:
        proxy.stall()
    connections = connect(cluster.url, connect_timeout_seconds=0.5)
    waiting = submit(connections, 0)
    tried = until(lambda: next((each for each in cluster.proxies if each.connections), None))
    [other] = {*cluster.proxies} - {tried}
    other.flow()
    assert waiting.result(10) == (None,)


def test_a_closing_program_does_not_wait_for_a_frozen_node(cluster: Cluster, connect: Connect) -> None:
    connections = connect(cluster.url)
    submit(connections, 0).result(10)
    frozen, _ = cluster.used()
    frozen.stall()
    stopping = threading.Thread(target=connections.stop, args=(1.0,))
    stopping.start()
    stopping.join(10)
    assert not stopping.is_alive()


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="an option of Linux")
def test_the_kernel_bounds_how_long_data_stays_unacknowledged(cluster: Cluster, connect: Connect) -> None:
    connections = connect(cluster.url, **SILENCE)
    submit(connections, 0).result(10)
    connection = connections._running().publishing
    kernel = connection.pika_connection._transport._sock
    milliseconds = [kernel.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)]
    for bounded in (False, True):
        connection.bound_unacknowledged(bounded)
        milliseconds.append(kernel.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT))
    assert milliseconds == [2000, 0, 2000]


def test_a_busy_program_keeps_its_connection(cluster: Cluster) -> None:
    """Its loop is blocked for longer than a node may be silent."""
    settings = Settings(_env_file=None, rabbitmq_url=cluster.url, partitions=1, **SILENCE)  # type: ignore[arg-type]

    async def main() -> None:
        async with AsyncClient(settings) as client:
            for _ in range(2):
                await client.send_message(1, "hi")
                time.sleep(1.6)  # noqa: ASYNC251  # this is what it must bear
            await client.send_message(1, "hi")

    asyncio.run(main())
    cluster.used()


def test_the_order_of_the_addresses_is_drawn_by_each_process() -> None:
    settings = Settings(_env_file=None, rabbitmq_url=",".join(f"amqp://node-{n}" for n in range(20)))

    def order(seed: int | None) -> list[str]:
        connections = Connections(settings, "test", chance=None if seed is None else random.Random(seed))
        try:
            return [address.host for address in connections._running().addresses]
        finally:
            connections.stop()

    assert order(1) == order(1) != order(2)
    assert order(None) != order(None)
