"""The effect of real processes on a server: queues, consumers, channels and messages, as RabbitMQ shows them."""

from __future__ import annotations

from typing import Any

import pika
import pytest

from floodgate.broker.amqp import delay_ladder, topology
from floodgate.broker.messages import queue_names
from tests.acceptance.conftest import MakeStage
from tests.acceptance.server import rows
from tests.acceptance.stage import BOT, FEW_PARTITIONS, Stage
from tests.acceptance.tap import Tap
from tests.processes import FloodgateProcess
from tests.services import Vhost
from tests.waiting import until

PARTITIONS = {
    queue_names.send_queue(BOT, priority, n) for priority in ("interactive", "bulk") for n in range(FEW_PARTITIONS)
}
ANSWERS = queue_names.answers_queue(BOT)
SENDS = PARTITIONS | {ANSWERS}
DEAD = {queue_names.dead_queue(BOT), queue_names.MALFORMED_QUEUE, queue_names.UNROUTABLE_QUEUE}
PERSISTENT = 2


@pytest.fixture
def worker(stage: Stage) -> FloodgateProcess:
    return stage.worker()


def test_every_queue_is_a_durable_quorum_queue_and_no_delay_is_held_in_memory(
    worker: FloodgateProcess, vhost: Vhost
) -> None:
    queues = rows(vhost, "list_queues", "name", "type", "durable", "auto_delete", "exclusive")
    names = {row["name"] for row in queues}
    levels = {delay_ladder.level_name(level) for level in range(delay_ladder.LEVELS)}
    assert names == SENDS | levels | DEAD  # no update queues: this worker only sends
    assert {row["type"] for row in queues} == {"quorum"}
    assert all(row["durable"] and not row["auto_delete"] and not row["exclusive"] for row in queues)
    assert not any(name.endswith((".DQ", ".XQ")) for name in names)


def test_a_partition_has_one_active_consumer_and_dead_letters_at_least_once(
    worker: FloodgateProcess, vhost: Vhost
) -> None:
    found = {
        row["name"]: dict(argument(a) for a in row["arguments"])
        for row in rows(vhost, "list_queues", "name", "arguments")
    }
    for name in SENDS:
        assert found[name]["x-single-active-consumer"] is True
        assert found[name]["x-dead-letter-exchange"] == queue_names.DEAD_EXCHANGE
        assert found[name]["x-dead-letter-strategy"] == "at-least-once"
        assert found[name]["x-overflow"] == "reject-publish"
        assert found[name]["x-delivery-limit"] == topology.DELIVERY_LIMIT


def argument(listed: Any) -> tuple[str, Any]:
    """rabbitmqctl shows an argument as [name, type, value], or as [name, value]."""
    return listed[0], listed[-1]


def test_partitions_have_a_prefetch_of_one_and_answers_a_larger_one(worker: FloodgateProcess, vhost: Vhost) -> None:
    consumers = rows(vhost, "list_consumers", "queue_name", "prefetch_count", "ack_required", "active", "arguments")
    assert {row["queue_name"] for row in consumers} == SENDS
    assert len(consumers) == len(SENDS)
    assert {row["prefetch_count"] for row in consumers if row["queue_name"] in PARTITIONS} == {1}
    assert [row["prefetch_count"] for row in consumers if row["queue_name"] == ANSWERS] == [16]
    assert all(row["ack_required"] and row["active"] for row in consumers)
    assert all("x-priority" in dict(argument(a) for a in row["arguments"]) for row in consumers)


def test_a_worker_has_two_connections_and_a_channel_for_each_partition(
    stage: Stage, worker: FloodgateProcess, vhost: Vhost
) -> None:
    stage.client().send_message(chat_id=1, text="so that all is open")
    until(lambda: stage.sent())
    properties = rows(vhost, "list_connections", "client_properties", "vhost", "channels")
    mine = [
        row
        for row in properties
        if row["vhost"] == vhost.name and f" worker {worker.pid}" in str(row["client_properties"])
    ]
    assert len(mine) == 2
    assert len([row for row in channels(vhost) if row["consumer_count"]]) == len(SENDS)


def channels(vhost: Vhost) -> list[dict[str, Any]]:
    listed = rows(vhost, "list_channels", "vhost", "consumer_count", "confirm", "prefetch_count")
    return [row for row in listed if row["vhost"] == vhost.name]


def test_publishing_channels_use_confirms(stage: Stage, worker: FloodgateProcess, vhost: Vhost) -> None:
    """The worker publishes when it parks: with four jobs for one chat at once, three are too many."""
    client = stage.client()
    client.enqueue_many(client.job("sendMessage", chat_id=7, text=str(n)) for n in range(4))
    until(lambda: stage.sent() == ["0", "1", "2", "3"])
    publishing = [row for row in channels(vhost) if not row["consumer_count"]]
    assert len(publishing) >= 2, "the client's and the worker's"
    assert sum(row["confirm"] for row in publishing) == 2


def use_every_way_out(stage: Stage) -> None:
    """One job sent, two parked by the worker, one by the client, one dead."""
    worker = stage.worker()
    stage.control.set_chat(9, trouble="blocked")
    client = stage.client()
    client.enqueue_many(client.job("sendMessage", chat_id=7, text=str(n)) for n in range(3))
    client.send_message(chat_id=8, text="later", delay=600)
    client.send_message(chat_id=9, text="to a blocker")
    until(lambda: stage.sent() == ["0", "1", "2"])
    until(lambda: stage.control.stats().by_code.get(403))
    assert worker.stop() == 0


def test_queued_parked_and_dead_messages_are_persistent(stage: Stage, vhost: Vhost) -> None:
    with Firehose(vhost) as firehose:
        use_every_way_out(stage)
        until(lambda: firehose.published_to(queue_names.DEAD_EXCHANGE))
        published = firehose.published()
    fresh = [message for message in published if message["exchange"] == ""]
    parked = [message for message in published if message["exchange"].startswith("floodgate.delay.")]
    assert (len(fresh), len(parked) >= 3) == (4, True)
    assert {message["properties"]["delivery_mode"] for message in published} == {PERSISTENT}
    assert {message["properties"]["priority"] for message in fresh} == {4}
    assert {message["properties"]["priority"] for message in parked} == {9}


def test_queued_parked_and_dead_messages_are_mandatory(new_stage: MakeStage, vhost: Vhost) -> None:
    with Tap(vhost.node.port) as tap:
        stage = new_stage(tap.url(vhost.url))
        use_every_way_out(stage)
        published = tap.publishes()
        stage.close()
    assert {method.exchange for method in published} >= {"", queue_names.DEAD_EXCHANGE}
    assert len(published) >= 8
    assert all(method.mandatory for method in published), published


class Firehose:
    """RabbitMQ's own trace of the messages published to a vhost."""

    def __init__(self, vhost: Vhost) -> None:
        self._vhost = vhost
        self._seen: list[dict[str, Any]] = []

    def __enter__(self) -> Firehose:
        self._vhost.ctl("trace_on")
        self._connection = pika.BlockingConnection(pika.URLParameters(self._vhost.url))
        self._channel = self._connection.channel()
        self._queue = self._channel.queue_declare(
            "", exclusive=True, arguments={"x-queue-type": "classic"}
        ).method.queue
        self._channel.queue_bind(self._queue, "amq.rabbitmq.trace", "publish.#")
        return self

    def __exit__(self, *_raised: object) -> None:
        self._connection.close()
        self._vhost.ctl("trace_off")

    def published(self) -> list[dict[str, Any]]:
        """Exchange, routing keys and properties of all messages so far."""
        while True:
            _, traced, _ = self._channel.basic_get(self._queue, auto_ack=True)
            if traced is None:
                return self._seen
            headers = traced.headers
            self._seen.append(
                {
                    "exchange": headers["exchange_name"],
                    "keys": headers["routing_keys"],
                    "properties": headers["properties"],
                }
            )

    def published_to(self, exchange: str) -> list[dict[str, Any]]:
        return [message for message in self.published() if message["exchange"] == exchange]
