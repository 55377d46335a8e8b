"""The number of a bot's partitions is recorded on the server, and a process with another one refuses to work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import dramatiq
import pika
import pytest
from dramatiq.errors import ConnectionClosed

from floodgate.broker.amqp import declaration, queue_admin, topology
from floodgate.broker.amqp.connections import Connections
from floodgate.broker.amqp.topology import Role
from floodgate.broker.errors import TopologyError
from floodgate.broker.messages.job import new_job
from floodgate.broker.messages.publication import Publication
from floodgate.broker.messages.queue_names import send_queue, updates_queue
from floodgate.broker.process.metrics import Metrics
from floodgate.broker.settings.model import Settings
from floodgate.broker.worker.dramatiq_broker import FloodgateBroker
from floodgate.producer.client import Client
from floodgate.producer.updates.intake import Intake
from tests.accounts import Accounts
from tests.services import Vhost

Connect = Callable[..., Connections]
TOKEN = "100200300:" + "A" * 35


def partitions(jobs: int, updates: int) -> topology.Topology:
    """Only what these tests are about: creating the delay ladder would take most of their time."""
    whole = topology.pipeline(["default"], jobs, update_partitions=updates)
    return replace(whole, queues=tuple(q for q in whole.queues if q.role in (Role.SEND, Role.UPDATES)), bindings=())


FOUR = partitions(4, 4)
DIFFERS = (
    r"Bot 'default' has 4 partitions on this RabbitMQ and this process has 2 \(FLOODGATE_PARTITIONS\).*"
    r"set FLOODGATE_PARTITIONS=4.*docs/operating\.md"
)


@pytest.fixture
def four(vhost: Vhost, connect: Connect) -> Vhost:
    """A vhost on which processes with four partitions have been."""
    queue_admin.declare(connect(vhost.url), FOUR)
    return vhost


def settings(url: str, partitions: int = 2, **given: object) -> Settings:
    return Settings(
        _env_file=None,
        rabbitmq_url=url,
        partitions=partitions,
        update_partitions=partitions,
        bots={"default": TOKEN},
        **given,
    )


def test_a_client_with_another_number_refuses_and_queues_nothing(four: Vhost, connect: Connect) -> None:
    with Client(settings(four.url)) as client, pytest.raises(TopologyError, match=DIFFERS):
        client.send_message(42, "hi")
    depths = queue_admin.depth(connect(four.url), [queue.name for queue in FOUR.queues])
    assert set(depths.values()) == {0}


def test_a_client_with_a_larger_number_creates_no_queue(four: Vhost, connect: Connect) -> None:
    with Client(settings(four.url, 8)) as client, pytest.raises(TopologyError, match="set FLOODGATE_PARTITIONS=4"):
        client.send_message(42, "hi")
    loads = queue_admin.partition_loads(connect(four.url), FOUR.counts)
    assert set(loads) == {queue.name for queue in FOUR.queues}


def test_an_account_that_may_not_create_queues_refuses_too(four: Vhost) -> None:
    accounts = Accounts(four)
    try:
        url = accounts.url("producer")
        with Client(settings(url)) as client, pytest.raises(TopologyError, match=DIFFERS):
            client.send_message(42, "hi")
        with Client(settings(url, 4)) as client:
            client.send_message(42, "hi")
    finally:
        accounts.remove()


def test_queues_of_an_earlier_version_are_kept_and_their_number_is_recorded(vhost: Vhost, connect: Connect) -> None:
    connections = connect(vhost.url)
    queue_admin.declare(connections, replace(FOUR, counts=()))
    accounts = Accounts(vhost)
    try:
        with Client(settings(accounts.url("producer"))) as client:  # may record nothing, and nothing is recorded
            client.send_message(42, "hi")
    finally:
        accounts.remove()
    assert len(queue_admin.verify(connections, FOUR)) == len(FOUR.counts)
    queue_admin.declare(connections, FOUR)
    assert queue_admin.verify(connections, FOUR) == []
    with Client(settings(vhost.url)) as client, pytest.raises(TopologyError, match=DIFFERS):
        client.send_message(42, "hi")


def test_verify_names_the_recorded_number(four: Vhost, connect: Connect) -> None:
    connections = connect(four.url)
    two = partitions(2, 2)
    sends, updates = queue_admin.verify(connections, two)
    assert "4 partitions on this RabbitMQ and this process has 2 (FLOODGATE_PARTITIONS)" in sends
    assert "4 update partitions on this RabbitMQ and this process has 2 (FLOODGATE_UPDATE_PARTITIONS)" in updates


def test_a_receiver_with_another_number_of_update_partitions_refuses(four: Vhost, connect: Connect) -> None:
    intake = Intake(settings(four.url), connect(four.url), Metrics())
    with pytest.raises(TopologyError, match="set FLOODGATE_UPDATE_PARTITIONS=4"):
        connect(four.url).io.run(intake.declare(), 10)


def test_bots_may_have_different_numbers(four: Vhost, connect: Connect) -> None:
    news = [replace(count, bot="news", count=2) for count in FOUR.counts]
    queue_admin.declare(connect(four.url), replace(FOUR, counts=(*FOUR.counts, *news), queues=()))


def test_dramatiqs_own_worker_and_send_refuse_too(four: Vhost) -> None:
    broker = FloodgateBroker(settings(four.url))
    try:
        broker.declare_queue("send")
        with pytest.raises(ConnectionClosed, match=DIFFERS):
            broker.consume(send_queue("default", "bulk", 0))
        job = new_job("sendMessage", {"chat_id": 42, "text": "hi"})
        message = dramatiq.Message[None]("send", "send", (), {"job": job.model_dump(mode="json")}, {})
        with pytest.raises(TopologyError, match=DIFFERS):
            broker.enqueue(message)
    finally:
        broker.close()


def test_the_number_can_be_changed_when_nobody_works(four: Vhost, connect: Connect) -> None:
    connections = connect(four.url)
    eight = partitions(8, 4)
    queue_admin.forget_other_counts(connections, eight.counts)
    queue_admin.declare(connections, eight)
    assert queue_admin.verify(connections, eight) == []
    with Client(settings(four.url, 4)) as client, pytest.raises(TopologyError, match="set FLOODGATE_PARTITIONS=8"):
        client.send_message(42, "hi")


def test_the_number_cannot_be_changed_under_a_worker(four: Vhost, connect: Connect) -> None:
    connections = connect(four.url)
    eight = partitions(8, 4)
    with pika.BlockingConnection(pika.URLParameters(four.url)) as worker:
        worker.channel().basic_consume(send_queue("default", "bulk", 3), lambda *_: None)
        with pytest.raises(TopologyError, match=r"send\.default\.bulk\.03 has a consumer: stop all processes"):
            queue_admin.forget_other_counts(connections, eight.counts)
    assert queue_admin.verify(connections, FOUR) == []


def test_the_number_cannot_be_lowered_below_a_queue_with_messages(four: Vhost, connect: Connect) -> None:
    connections = connect(four.url)
    two = partitions(2, 2)
    connections.publisher.publish(Publication("", updates_queue("default", 3), b"{}", "id"))
    with pytest.raises(TopologyError, match=r"updates\.default\.03 is not empty \(.*: 1\).*UPDATE_PARTITIONS=4"):
        queue_admin.forget_other_counts(connections, two.counts)
    assert queue_admin.verify(connections, FOUR) == []


def test_a_record_that_was_left_half_made_can_be_replaced_and_stops_nobody(
    vhost: Vhost, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process ended between the two exchanges."""
    monkeypatch.setattr(declaration, "MOST_PARTITIONS", 8)  # which are looked for one by one
    connections = connect(vhost.url)
    first, _ = FOUR.counts[0].exchanges
    queue_admin.declare(connections, replace(FOUR, counts=(), exchanges=(first,), queues=(), bindings=()))
    queue_admin.check_counts(connections, partitions(2, 0))
    with pytest.raises(TopologyError, match="another number of partitions"):
        queue_admin.declare(connections, partitions(2, 0))
    queue_admin.forget_other_counts(connections, partitions(2, 0).counts)
    queue_admin.declare(connections, partitions(2, 0))


def test_partitions_beyond_the_settings_are_counted_and_those_without_a_consumer_named(
    four: Vhost, connect: Connect
) -> None:
    connections = connect(four.url)
    for queue in (send_queue("default", "bulk", 0), send_queue("default", "bulk", 3), updates_queue("default", 3)):
        connections.publisher.publish(Publication("", queue, b"{}", "id"))
    with pika.BlockingConnection(pika.URLParameters(four.url)) as worker:
        channel = worker.channel()
        channel.basic_qos(prefetch_count=1)
        connections.publisher.publish(Publication("", send_queue("default", "bulk", 0), b"{}", "id"))
        channel.basic_consume(send_queue("default", "bulk", 0), lambda *_: None)
        two = partitions(2, 2)
        loads = queue_admin.partition_loads(connections, two.counts)
    assert set(loads) == {name for count in FOUR.counts for name in count.queues}
    assert loads[send_queue("default", "bulk", 0)].consumers == 1
    assert queue_admin.unread(loads) == {send_queue("default", "bulk", 3): 1, updates_queue("default", 3): 1}
