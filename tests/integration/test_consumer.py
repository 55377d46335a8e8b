"""Consuming on a real server: one in hand, in order, through handovers, losses and repairs."""

from __future__ import annotations

import json
import logging
import queue
import re
import threading
import time
from collections.abc import Callable

import pika
import pytest

from floodgate.broker.amqp import consumer, queue_admin, topology
from floodgate.broker.amqp.connections import Connections
from floodgate.broker.amqp.consumer import Delivery
from floodgate.broker.messages import queue_names
from floodgate.broker.messages.partitions import rendezvous_score
from floodgate.broker.messages.publication import Publication
from rabbitmq_node.node import Node
from tests.proxy import Proxy
from tests.services import Vhost
from tests.waiting import until

Connect = Callable[..., Connections]
MemoryAlarm = Callable[[bool], object]
PIPELINE = topology.pipeline(["b"], 2, work_queues=["mail"])
SEND = queue_names.send_queue("b", "bulk", 0)
OTHER = queue_names.send_queue("b", "bulk", 1)
# RabbitMQ's frames of a delivery: basic.deliver, header and body.
DELIVERY_OF_1 = re.compile(rb"\x01..\x00\x00..\x00\x3c\x00\x3c.*\x03..\x00\x00\x00\x011\xce", re.DOTALL)


class Hand:
    """A worker's deliveries in order; the test settles them. Filled by the event loop."""

    def __init__(self, *, ack: bool = False) -> None:
        self.deliveries: queue.SimpleQueue[Delivery] = queue.SimpleQueue()
        self.seen: list[int] = []
        self._ack = ack

    def __call__(self, delivery: Delivery) -> None:
        self.seen.append(int(delivery.body))
        if self._ack:
            delivery.ack()
        else:
            self.deliveries.put(delivery)

    def next(self, seconds: float = 10) -> Delivery:
        return self.deliveries.get(timeout=seconds)

    @property
    def empty(self) -> bool:
        return self.deliveries.empty()


def fill(connections: Connections, *numbers: int, to: str = SEND) -> None:
    outcomes = connections.publisher.submit_many([Publication("", to, b"%d" % n, f"job-{n}") for n in numbers])
    assert not any(outcomes.result(10))


def consumers(vhost: Vhost) -> list[dict[str, object]]:
    columns = ("queue_name", "consumer_tag", "active", "prefetch_count", "arguments")
    return list(json.loads(vhost.ctl("list_consumers", *columns, "--formatter=json")))


def depth(connections: Connections, name: str = SEND) -> int | None:
    return queue_admin.depth(connections, [name])[name]


def rank(name: str = SEND) -> tuple[str, str]:
    """Two worker ids: the queue's owner, and one that yields to it."""
    workers = sorted(("worker-a", "worker-b"), key=lambda worker: rendezvous_score(worker, name))
    return workers[1], workers[0]


def test_the_next_message_is_delivered_after_the_ack(declared: Vhost, connect: Connect) -> None:
    connections, hand = connect(declared.url), Hand()
    fill(connections, 1, 2)
    connections.subscribe(SEND, "worker", hand, lambda: PIPELINE)
    first = hand.next()
    assert (first.queue, first.message_id, first.priority, first.redelivered) == (SEND, "job-1", 4, False)
    assert first.live
    assert depth(connections) == 1
    assert hand.empty
    first.ack()
    assert not first.live
    assert hand.next().message_id == "job-2"


def test_an_unordered_queue_delivers_several_messages_which_are_settled_separately(
    declared: Vhost, connect: Connect
) -> None:
    connections, hand = connect(declared.url), Hand()
    fill(connections, 1, 2, 3, 4, to="mail")
    connections.subscribe("mail", "worker", hand, PIPELINE, prefetch=2)
    first, second = hand.next(), hand.next()
    assert hand.empty
    second.ack()
    assert hand.next().message_id == "job-3"
    assert first.live


def test_a_draining_queue_takes_no_new_messages(declared: Vhost, connect: Connect) -> None:
    connections, hand = connect(declared.url), Hand()
    fill(connections, 1, 2, 3, 4, to="mail")
    subscription = connections.subscribe("mail", "worker", hand, PIPELINE, prefetch=2)
    first, second = hand.next(), hand.next()
    subscription.drain()
    first.ack()
    until(lambda: depth(connections, "mail") == 1)  # RabbitMQ has delivered the third
    second.ack()
    until(lambda: depth(connections, "mail") == 2)
    assert hand.empty


def test_the_server_shows_prefetch_one_and_the_rendezvous_priority(declared: Vhost, connect: Connect) -> None:
    connections, hand = connect(declared.url), Hand()
    fill(connections, 1)
    connections.subscribe(SEND, "worker", hand, lambda: PIPELINE)
    hand.next()
    [found] = consumers(declared)
    assert (found["queue_name"], found["prefetch_count"], found["active"]) == (SEND, 1, True)
    assert found["arguments"] == [["x-priority", "long", rendezvous_score("worker", SEND)]] or (
        rendezvous_score("worker", SEND) in found["arguments"][0]  # type: ignore[index]
    )


def test_a_requeued_message_is_redelivered_before_later_ones(declared: Vhost, connect: Connect) -> None:
    connections, hand = connect(declared.url), Hand()
    fill(connections, 1, 2)
    connections.subscribe(SEND, "worker", hand, lambda: PIPELINE)
    hand.next().requeue()
    again = hand.next()
    assert (again.message_id, again.redelivered, again.delivery_count) == ("job-1", True, 1)


def test_a_message_settled_twice_is_settled_once(declared: Vhost, connect: Connect) -> None:
    connections, hand = connect(declared.url), Hand()
    fill(connections, 1, 2)
    connections.subscribe(SEND, "worker", hand, lambda: PIPELINE)
    first = hand.next()
    first.ack()
    first.requeue()
    first.ack()
    hand.next().ack()
    until(lambda: depth(connections) == 0)
    assert hand.seen == [1, 2]


def test_a_draining_worker_finishes_its_messages_and_hands_over_in_order(declared: Vhost, connect: Connect) -> None:
    mine, his = connect(declared.url), connect(declared.url)
    first_worker, second_worker = Hand(), Hand(ack=True)
    fill(mine, *range(50))
    subscription = mine.subscribe(SEND, rank()[0], first_worker, lambda: PIPELINE)
    in_hand = first_worker.next()
    his.subscribe(SEND, rank()[1], second_worker, lambda: PIPELINE)
    until(lambda: len(consumers(declared)) == 2)
    subscription.drain()
    assert second_worker.seen == []
    in_hand.ack()
    until(lambda: len(second_worker.seen) == 49)
    assert (first_worker.seen, second_worker.seen) == ([0], list(range(1, 50)))


def test_the_owner_takes_over_only_after_the_message_in_hand_is_settled(declared: Vhost, connect: Connect) -> None:
    owner, other = rank()
    connections, newcomer = connect(declared.url), connect(declared.url)
    yielding, owning = Hand(), Hand()
    fill(connections, 1, 2, 3)
    connections.subscribe(SEND, other, yielding, lambda: PIPELINE)
    in_hand = yielding.next()
    newcomer.subscribe(SEND, owner, owning, lambda: PIPELINE)
    until(lambda: len(consumers(declared)) == 2)
    assert owning.empty
    in_hand.ack()
    assert owning.next().message_id == "job-2"
    assert yielding.empty


def test_a_message_requeued_while_the_owner_waits_goes_to_the_owner(
    declared: Vhost, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RabbitMQ before 4.1.2 activates nobody when the yielding consumer's last message is requeued."""
    monkeypatch.setattr(consumer, "STANDSTILL_SECONDS", 3600)
    owner, other = rank()
    connections, newcomer = connect(declared.url), connect(declared.url)
    yielding, owning = Hand(), Hand(ack=True)
    fill(connections, 1, 2, 3)
    connections.subscribe(SEND, other, yielding, lambda: PIPELINE)
    in_hand = yielding.next()
    newcomer.subscribe(SEND, owner, owning, lambda: PIPELINE)
    until(lambda: len(consumers(declared)) == 2)
    in_hand.requeue()
    until(lambda: owning.seen == [1, 2, 3])
    assert yielding.empty
    assert [each.reconnections for each in newcomer._running().all] == [0, 0]


def test_a_message_that_rabbitmq_did_not_deliver_is_delivered_after_a_while(
    declared: Vhost, connect: Connect, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As when the leader of its queue fails between taking note of a delivery and making it."""
    monkeypatch.setattr(consumer, "STANDSTILL_SECONDS", 0.5)
    with Proxy(declared.node.port) as proxy, caplog.at_level(logging.INFO, "floodgate.rabbitmq"):
        connections, hand = connect(proxy.url(declared.url), silence_timeout_seconds=1), Hand(ack=True)
        subscription = connections.subscribe(SEND, "worker", hand, lambda: PIPELINE)
        until(lambda: subscription.is_registered)
        proxy.withhold(DELIVERY_OF_1)
        fill(connections, 1, 2)
        until(lambda: depth(connections) == 1)
        assert hand.seen == []
        proxy.withhold(None)
        until(lambda: hand.seen == [1, 2])
    assert f"1 messages wait in {SEND}" in caplog.text
    assert f"RabbitMQ delivers messages of {SEND} again" in caplog.text


@pytest.mark.parametrize("_round", range(5))
def test_no_message_overtakes_one_returned_by_a_closing_channel(declared: Vhost, connect: Connect, _round: int) -> None:
    """pika's own Channel.close cancels first; then message 2 is seen before message 1 returns."""
    owner, other = rank()
    mine, his = connect(declared.url), connect(declared.url)
    closing, taking = Hand(), Hand(ack=True)
    fill(mine, *range(1, 20))
    subscription = mine.subscribe(SEND, owner, closing, lambda: PIPELINE)
    assert closing.next().message_id == "job-1"
    his.subscribe(SEND, other, taking, lambda: PIPELINE)
    until(lambda: len(consumers(declared)) == 2)
    subscription.close()
    until(lambda: len(taking.seen) == 19)
    assert taking.seen == list(range(1, 20))


def test_a_suspended_queue_is_released_and_consumed_again(declared: Vhost, connect: Connect) -> None:
    connections, hand = connect(declared.url), Hand()
    fill(connections, 1, 2)
    subscription = connections.subscribe(SEND, "worker", hand, lambda: PIPELINE)
    in_hand = hand.next()
    started = time.monotonic()
    subscription.suspend(1.0)
    in_hand.ack()
    assert hand.next().message_id == "job-2"
    assert time.monotonic() - started >= 1.0


def test_a_suspended_queue_can_be_resumed_at_once(declared: Vhost, connect: Connect) -> None:
    connections, hand = connect(declared.url), Hand()
    subscription = connections.subscribe(SEND, "worker", hand, lambda: PIPELINE)
    subscription.suspend(3600)
    subscription.resume()
    fill(connections, 1)
    assert hand.next().message_id == "job-1"


def test_an_ack_after_its_connection_was_lost_does_not_ack_another_message(declared: Vhost, connect: Connect) -> None:
    """H2: delivery tags restart at 1 after a reconnect."""
    with Proxy(declared.node.port) as proxy:
        connections, hand = connect(proxy.url(declared.url)), Hand()
        fill(connections, 1, 2)
        connections.subscribe(SEND, "worker", hand, lambda: PIPELINE)
        late = hand.next()
        proxy.reset()
        again = hand.next()
        assert (again.message_id, again.redelivered) == ("job-1", True)
        assert not late.live
        late.ack()
        fill(connections, 3)
        assert hand.empty
        assert again.live
        again.ack()
        assert hand.next().message_id == "job-2"


@pytest.mark.parametrize("fault", ["reset", "cut"])
def test_a_lost_connection_resumes_every_queue(declared: Vhost, connect: Connect, fault: str) -> None:
    with Proxy(declared.node.port) as proxy:
        connections, hand = connect(proxy.url(declared.url)), Hand(ack=True)
        for name in (SEND, OTHER, "mail"):
            connections.subscribe(name, "worker", hand, lambda: PIPELINE)
        until(lambda: len(consumers(declared)) == 3)
        getattr(proxy, fault)()
        for n, name in enumerate((SEND, OTHER, "mail")):
            fill(connections, n, to=name)
        until(lambda: sorted(hand.seen) == [0, 1, 2])


def test_a_half_open_connection_is_noticed_by_its_heartbeat(declared: Vhost, connect: Connect) -> None:
    with Proxy(declared.node.port) as proxy:
        connections, hand = connect(proxy.url(declared.url), heartbeat_seconds=2), Hand(ack=True)
        fill(connections, 1)
        connections.subscribe(SEND, "worker", hand, lambda: PIPELINE)
        until(lambda: hand.seen == [1])
        before = proxy.connections
        proxy.half_open()
        until(lambda: proxy.connections > before, seconds=20)  # it abandoned the old one and is trying again
        proxy.drop_half_open()
        fill(connections, 2)
        until(lambda: hand.seen == [1, 2])


def test_a_deleted_queue_is_declared_again(declared: Vhost, connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    connections, hand = connect(declared.url), Hand(ack=True)
    connections.subscribe(SEND, "worker", hand, lambda: PIPELINE)
    until(lambda: len(consumers(declared)) == 1)
    with caplog.at_level(logging.WARNING, "floodgate.rabbitmq"):
        declared.ctl("delete_queue", SEND)
        until(lambda: queue_admin.verify(connections, PIPELINE) == [])
    fill(connections, 1)
    until(lambda: hand.seen == [1])
    assert caplog.text.count(f"queue {SEND} is missing") == 1


def test_a_queue_that_never_existed_is_declared(vhost: Vhost, connect: Connect) -> None:
    connections, hand = connect(vhost.url), Hand(ack=True)
    connections.subscribe("mail", "worker", hand, lambda: PIPELINE)
    until(lambda: queue_admin.depth(connections, ["mail"])["mail"] == 0)
    until(lambda: queue_admin.verify(connections, PIPELINE) == [])
    fill(connections, 1, to="mail")
    until(lambda: hand.seen == [1])


def test_a_changed_policy_does_not_interrupt_consuming(declared: Vhost, connect: Connect) -> None:
    connections, hand = connect(declared.url), Hand(ack=True)
    connections.subscribe(SEND, "worker", hand, lambda: PIPELINE)
    fill(connections, 1)
    declared.ctl("set_policy", "limit", "^send", '{"delivery-limit": 7}', "--apply-to", "quorum_queues")
    fill(connections, 2)
    until(lambda: hand.seen == [1, 2])


def _asking(vhost: Vhost, most: int) -> list[int]:
    """The channels of each connection, once one has so many. One asks, after a second, whether RabbitMQ answers."""
    rows = json.loads(vhost.node.ctl("list_connections", "vhost", "channels", "--formatter=json"))
    mine = [row["channels"] for row in rows if row["vhost"] == vhost.name]
    return mine if max(mine) == most else []


def test_a_worker_has_two_connections_for_any_number_of_partitions(declared: Vhost, connect: Connect) -> None:
    for partitions in (16, 128):
        connections = connect(declared.url)
        wide = topology.pipeline([f"wide-{partitions}"], partitions)
        queue_admin.declare(connections, wide)
        names = [queue_names.send_queue(f"wide-{partitions}", "bulk", n) for n in range(partitions)]
        hand = Hand(ack=True)
        started = time.monotonic()
        for name in names:
            connections.subscribe(name, "worker", hand, wide)
        for n, name in enumerate(names):
            fill(connections, n, to=name)
        until(lambda hand=hand, count=partitions: len(hand.seen) == count)  # type: ignore[misc]
        assert time.monotonic() - started < 10
        channels = until(lambda count=partitions: _asking(declared, count + 1))  # type: ignore[misc]
        connections.stop()
        assert len(channels) == 2 + 1  # and the one of the fixture, which declared the queues
        until(lambda: len(_connections(declared)) == 1)


def _connections(vhost: Vhost) -> list[object]:
    rows = json.loads(vhost.node.ctl("list_connections", "vhost", "--formatter=json"))
    return [row for row in rows if row["vhost"] == vhost.name]


def test_acks_get_through_while_publishing_is_blocked(
    declared: Vhost, memory_alarm: MemoryAlarm, connect: Connect
) -> None:
    connections, hand = connect(declared.url), Hand(ack=True)
    fill(connections, 1, 2, 3)
    memory_alarm(True)
    connections.publisher.submit_many([Publication("", OTHER, b"9", "blocks-us")])
    until(lambda: connections.publisher._blocked_since is not None)
    connections.subscribe(SEND, "worker", hand, lambda: PIPELINE)
    until(lambda: hand.seen == [1, 2, 3])
    until(lambda: depth(connections) == 0)


def test_stopping_returns_the_messages_in_hand(declared: Vhost, connect: Connect) -> None:
    mine, hand, successor = connect(declared.url), Hand(), Hand()
    fill(mine, 1)
    mine.subscribe(SEND, "worker", hand, lambda: PIPELINE)
    hand.next()
    mine.stop()
    connect(declared.url).subscribe(SEND, "worker", successor, lambda: PIPELINE)
    assert successor.next().message_id == "job-1"


def test_a_worker_started_before_its_server_keeps_trying_and_logs_it_once(
    new_node: Callable[..., Node], connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    node = new_node().start()
    node.stop()
    connections, connected = connect(node.url), threading.Event()

    def start() -> None:
        connections.connect(keep_trying=True)
        connected.set()

    with caplog.at_level(logging.WARNING, "floodgate.rabbitmq"):
        threading.Thread(target=start, daemon=True).start()
        assert not connected.wait(1.5)
        node.start()
        assert connected.wait(20)
    assert caplog.text.count("cannot be reached") == 1


def test_taking_over_after_sigkill_is_quick(declared: Vhost, connect: Connect) -> None:
    """The dead one's socket is closed by its kernel, as by this reset."""
    owner, other = rank()
    with Proxy(declared.node.port) as proxy:
        dying, living = Hand(), Hand(ack=True)
        mine = connect(declared.url)
        fill(mine, 1, 2)
        connect(proxy.url(declared.url)).subscribe(SEND, owner, dying, lambda: PIPELINE)
        dying.next()
        mine.subscribe(SEND, other, living, lambda: PIPELINE)
        until(lambda: len(consumers(declared)) == 2)
        proxy.refuse()
        started = time.monotonic()
        proxy.reset()
        until(lambda: living.seen == [1, 2])
        assert time.monotonic() - started < 1


def test_the_channel_of_a_message_held_too_long_is_reopened(
    declared: Vhost, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """Instead of the consumer timeout, which takes minutes: the server closes the channel with a 406 here, too."""
    connections, hand = connect(declared.url), Hand()
    fill(connections, 1, 2)
    subscription = connections.subscribe(SEND, "worker", hand, lambda: PIPELINE)
    late = hand.next()
    with caplog.at_level(logging.WARNING, "floodgate.rabbitmq"):
        connections.io.call_soon(lambda: subscription._channel.basic_ack(99))  # an unknown tag: PRECONDITION_FAILED
        again = hand.next()
    assert (again.message_id, again.redelivered) == ("job-1", True)
    assert f"closed the channel of {SEND}: PRECONDITION_FAILED" in caplog.text
    late.ack()
    again.ack()
    assert hand.next().message_id == "job-2"


def test_stock_pika_lets_a_message_overtake_another(declared: Vhost, connect: Connect) -> None:
    """Shows the hazard that closing without a cancel avoids: if this fails, that care is no longer needed."""
    connections, taking = connect(declared.url), Hand()
    fill(connections, 1, 2)
    connection = pika.BlockingConnection(pika.URLParameters(declared.url))
    channel = connection.channel()
    channel.basic_qos(prefetch_count=1)
    in_hand: list[str] = []
    tag = channel.basic_consume(
        SEND, lambda _channel, _method, properties, _body: in_hand.append(properties.message_id)
    )
    connection.process_data_events(1)
    assert in_hand == ["job-1"]
    connections.subscribe(SEND, "worker", taking, lambda: PIPELINE)
    until(lambda: len(consumers(declared)) == 2)
    channel.basic_cancel(tag)
    assert taking.next().message_id == "job-2"
    connection.close()


def test_queues_beyond_the_channel_limit_are_consumed_on_further_connections(
    declared: Vhost, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("floodgate.broker.amqp.connections.MOST_SUBSCRIPTIONS", 2)
    connections, hand = connect(declared.url), Hand()
    queues = [
        SEND,
        OTHER,
        "mail",
        queue_names.send_queue("b", "interactive", 0),
        queue_names.send_queue("b", "interactive", 1),
    ]
    for name in queues:
        connections.subscribe(name, "worker", hand, lambda: PIPELINE)
    for number, name in enumerate(queues):
        fill(connections, number, 10 + number, to=name)
    first = [hand.next() for _ in queues]
    assert sorted(delivery.queue for delivery in first) == sorted(queues)
    for delivery in first:
        delivery.ack()
    for _ in queues:
        hand.next().ack()
    until(lambda: set(queue_admin.depth(connections, queues).values()) == {0})
    assert sorted(hand.seen) == [0, 1, 2, 3, 4, 10, 11, 12, 13, 14]
    assert consuming_connections(declared) == ["consume", "consume-2", "consume-3"]


def consuming_connections(vhost: Vhost) -> list[str]:
    """Their connection names on RabbitMQ, as far as they are distinct."""
    listed = json.loads(vhost.ctl("list_connections", "vhost", "client_properties", "--formatter=json"))
    told = [str(row["client_properties"]) for row in listed if row["vhost"] == vhost.name]
    return sorted(re.findall(r"floodgate (consume[-0-9]*) test", " ".join(told)))
