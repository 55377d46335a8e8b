"""A subscription's channels, opened and closed by hand, with timers that are fired by hand."""

from __future__ import annotations

import asyncio
import logging
import math
import struct
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pika.exceptions
import pytest

from floodgate.broker.amqp import consumer
from floodgate.broker.amqp.connection import ConnectionState
from floodgate.broker.amqp.consumer import (
    FIRST_PAUSE_SECONDS,
    LONGEST_PAUSE_SECONDS,
    LONGEST_STANDSTILL_SECONDS,
    STANDSTILL_SECONDS,
    Delivery,
    Subscription,
    Subscriptions,
)
from floodgate.broker.errors import RabbitMQUnreachableError
from tests.hand_timers import HandTimers

MISSING = pika.exceptions.ChannelClosedByBroker(404, "NOT_FOUND - no queue 'q'")
HELD_TOO_LONG = pika.exceptions.ChannelClosedByBroker(406, "PRECONDITION_FAILED")


ACK, NACK = 80, 120  # basic.ack, basic.nack


class Channel:
    """Replaces pika's channel."""

    def __init__(self, number: int, on_open: Callable[[Any], None]) -> None:
        self.channel_number = number
        self._on_open = on_open
        self.is_open = self.is_closing = self.is_closed = False
        self.prefetched = 0
        self.written: list[bytes] = []
        self._consumers: dict[str, object] = {}

    def add_on_close_callback(self, call: Callable[[Any, Exception], None]) -> None:
        self._on_close = call

    def add_on_cancel_callback(self, call: Callable[[Any], None]) -> None: ...

    def basic_qos(self, prefetch_count: int) -> None:
        self.prefetched = prefetch_count

    def basic_consume(self, _queue: str, on_message: Any, *, callback: Any, **_options: Any) -> None:
        self._on_message, self._on_consuming = on_message, callback
        self._consumers["tag"] = on_message

    @property
    def acked(self) -> list[int]:
        return [tag for tag, method in self._answers if method == ACK]

    @property
    def requeued(self) -> list[int]:
        return [tag for tag, method in self._answers if method == NACK]

    @property
    def _answers(self) -> list[tuple[int, int]]:
        """The written data, parsed as AMQP."""
        answers = []
        for frame in self.written:
            kind, channel, size, basic, method, tag, bits, end = struct.unpack(">BHIHHQBB", frame)
            assert (kind, channel, size, basic, end) == (1, self.channel_number, len(frame) - 8, 60, 0xCE)
            assert bits == (2 if method == NACK else 0)
            answers.append((tag, method))
        return answers

    def close(self) -> None:
        assert not self._consumers, "pika would cancel them, and the next message overtake this one"
        self.is_open, self.is_closed = False, True

    def opens(self) -> None:
        self.is_open = True
        self._on_open(self)

    def consumes(self) -> None:
        self._on_consuming(None)

    def delivers(self, tag: int) -> None:
        method = SimpleNamespace(delivery_tag=tag, redelivered=False)
        self._on_message(self, method, SimpleNamespace(message_id=f"m{tag}", headers=None, priority=4), b"")

    def is_refused(self, reason: Exception = HELD_TOO_LONG) -> None:
        self.is_open, self.is_closed = False, True
        self._on_close(self, reason)


class Stand(HandTimers):
    """Replaces the event loop and the connection: calls run at once, timers when they are fired, frames are examined
    when they are flushed."""

    is_current = True

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.state = ConnectionState.UP
        self.server_version: tuple[int, ...] = (4, 3, 0)
        self.connection = self.pika_connection = self
        self.channels: list[Channel] = []
        self._frames: list[bytes] = []

    def follow(self, up: Callable[[], None], down: Callable[[Any], None]) -> None:
        self.up, self.down = up, down

    def open(self) -> None: ...

    def channel(self, on_open_callback: Callable[[Any], None]) -> Channel:
        self.channels.append(Channel(len(self.channels) + 1, on_open_callback))
        return self.channels[-1]

    def write(self, frame: bytes) -> None:
        self._frames.append(frame)

    def flush(self) -> None:
        frames, self._frames = self._frames, []
        for frame in frames:
            number = int.from_bytes(frame[1:3], "big")
            if self.channels[number - 1].is_open:  # otherwise RabbitMQ would not know the channel
                self.channels[number - 1].written.append(frame)

    def call_soon(self, call: Callable[[], None]) -> None:
        call()

    def fire(self) -> float:
        timer = self.planned.pop(0)
        timer.call()
        self.turn()
        return timer.seconds


class Scene:
    """One subscription, whose first channel is open."""

    def __init__(self, loop: asyncio.AbstractEventLoop, prefetch: int = 1) -> None:
        self.stand = Stand(loop)
        self.group = Subscriptions(self.stand, self.stand)  # type: ignore[arg-type]
        self.seen: list[Delivery] = []
        self.lost = 0
        self.declared: list[asyncio.Future[None]] = []
        self.subscription = Subscription(self.group, "q", "worker", self.seen.append, self._lose, prefetch)
        self.group.add(self.subscription, self._declare)
        self.channel.opens()

    @property
    def channel(self) -> Channel:
        return self.stand.channels[-1]

    def _lose(self) -> None:
        self.lost += 1

    async def _declare(self) -> None:
        self.declared.append(self.stand.loop.create_future())
        await self.declared[-1]


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture
def scene(loop: asyncio.AbstractEventLoop) -> Scene:
    return Scene(loop)


def test_pauses_double_up_to_the_longest_and_reset_once_it_consumes(scene: Scene) -> None:
    pauses = []
    for _ in range(9):
        scene.channel.is_refused()
        pauses.append(scene.stand.fire())
        scene.channel.opens()
    assert pauses[:4] == [FIRST_PAUSE_SECONDS * 2**n for n in range(4)]
    assert pauses[-1] == LONGEST_PAUSE_SECONDS
    scene.channel.consumes()
    scene.channel.is_refused()
    assert scene.stand.fire() == FIRST_PAUSE_SECONDS


def test_a_settlement_for_a_closed_channel_is_not_sent(scene: Scene) -> None:
    scene.channel.delivers(1)
    scene.channel.is_refused()
    scene.stand.fire()
    scene.channel.opens()
    scene.channel.delivers(1)
    old, new = scene.seen
    assert (old.live, new.live) == (False, True)
    old.ack()
    scene.stand.flush()
    assert [channel.acked for channel in scene.stand.channels] == [[], []]
    new.ack()
    scene.stand.flush()
    assert [channel.acked for channel in scene.stand.channels] == [[], [1]]


def test_a_message_from_an_abandoned_channel_is_ignored(scene: Scene) -> None:
    left = scene.channel
    scene.stand.down(RabbitMQUnreachableError("lost"))
    left.delivers(1)
    assert scene.seen == []


def test_a_missing_queue_is_declared_only_once_at_a_time(scene: Scene) -> None:
    scene.channel.is_refused(MISSING)
    scene.stand.fire()
    scene.group.restore(scene.subscription, missing=True)
    scene.stand.fire()
    assert len(scene.declared) == 1
    scene.declared[0].set_result(None)
    scene.stand.turn()
    assert len(scene.stand.channels) == 2


@pytest.mark.parametrize("error", [RabbitMQUnreachableError("away"), AttributeError("a bug")])
def test_declaring_a_queue_is_retried_after_a_failure(scene: Scene, error: Exception) -> None:
    scene.channel.is_refused(MISSING)
    scene.stand.fire()
    scene.declared[0].set_exception(error)
    scene.stand.turn()
    scene.stand.fire()
    assert len(scene.declared) == 2


def test_a_suspended_queue_that_is_drained_is_not_consumed_again(scene: Scene) -> None:
    scene.subscription.suspend(5)
    scene.subscription.drain()
    assert (scene.stand.planned, len(scene.stand.channels)) == ([], 1)


def test_a_drained_queue_cannot_be_suspended(scene: Scene) -> None:
    scene.subscription.drain()
    scene.subscription.suspend(5)
    assert scene.stand.planned == []


def test_a_closed_subscription_is_not_reopened_on_the_next_connection(scene: Scene) -> None:
    scene.subscription.close()
    scene.stand.down(RabbitMQUnreachableError("lost"))
    scene.stand.up()
    assert len(scene.stand.channels) == 1
    assert not scene.group._members


def test_the_queue_is_consumed_again_on_every_new_connection(scene: Scene) -> None:
    scene.stand.down(RabbitMQUnreachableError("lost"))
    scene.stand.up()
    assert len(scene.stand.channels) == 2


def test_a_drained_queue_is_handed_over_once_its_message_is_settled(scene: Scene) -> None:
    scene.channel.delivers(1)
    scene.subscription.drain()
    assert scene.channel.is_open
    scene.seen[0].ack()
    assert (scene.channel.acked, scene.channel.is_open) == ([1], False)


def test_a_drained_window_is_handed_over_once_its_last_message_is_settled(
    loop: asyncio.AbstractEventLoop,
) -> None:
    scene = Scene(loop, prefetch=3)
    assert scene.channel.prefetched == 3
    for tag in (1, 2, 3):
        scene.channel.delivers(tag)
    scene.subscription.drain()
    scene.seen[0].ack()
    scene.seen[2].requeue()
    assert scene.channel.is_open
    scene.seen[1].ack()
    assert (scene.channel.acked, scene.channel.requeued, scene.channel.is_open) == ([1, 2], [3], False)


def test_a_last_message_is_requeued_by_closing_its_channel_where_rabbitmq_would_forget_the_queue(
    loop: asyncio.AbstractEventLoop,
) -> None:
    scene = Scene(loop, prefetch=2)
    scene.stand.server_version = (4, 1, 1)
    for tag in (1, 2):
        scene.channel.delivers(tag)
    scene.seen[0].requeue()
    scene.stand.flush()
    assert (scene.channel.requeued, len(scene.stand.channels)) == ([1], 1)
    scene.seen[1].requeue()
    left, current = scene.stand.channels
    assert (left.requeued, left.is_open) == ([1], False)
    current.opens()
    current.delivers(1)
    assert scene.seen[-1].live


def test_messages_put_down_are_only_returned_by_closing_their_channel(loop: asyncio.AbstractEventLoop) -> None:
    """So it returns with the others of its window, in order, and RabbitMQ counts them alike."""
    scene = Scene(loop, prefetch=2)
    for tag in (1, 2):
        scene.channel.delivers(tag)
    scene.subscription.drain()
    scene.seen[1].put_down()
    assert scene.channel.is_open
    scene.seen[0].ack()
    assert (scene.channel.acked, scene.channel.requeued, scene.channel.is_open) == ([1], [], False)


def test_a_message_is_settled_once(scene: Scene) -> None:
    scene.channel.delivers(1)
    for _ in range(2):
        scene.seen[0].requeue()
        scene.seen[0].ack()
        scene.seen[0].put_down()
    scene.stand.flush()
    assert (scene.channel.acked, scene.channel.requeued, scene.seen[0].live) == ([], [1], False)


def test_messages_delivered_while_draining_are_not_begun_and_return_with_the_channel(
    loop: asyncio.AbstractEventLoop,
) -> None:
    scene = Scene(loop, prefetch=2)
    scene.channel.delivers(1)
    scene.subscription.drain()
    scene.channel.delivers(2)
    assert len(scene.seen) == 1
    scene.seen[0].ack()
    assert (scene.channel.acked, scene.channel.is_open) == ([1], False)


def test_messages_delivered_while_draining_are_handled_if_the_queue_is_resumed(
    loop: asyncio.AbstractEventLoop,
) -> None:
    scene = Scene(loop, prefetch=2)
    scene.channel.delivers(1)
    scene.subscription.drain()
    scene.channel.delivers(2)
    scene.subscription.resume()
    assert [each.message_id for each in scene.seen] == ["m1", "m2"]
    assert len(scene.stand.channels) == 1


def stand_still(scene: Scene, clock: list[float], seconds: float, messages: int = 5) -> int:
    """Let a queue report the same number of messages each second. Returns how many channels were opened."""
    before = len(scene.stand.channels)
    for _ in range(math.ceil(seconds) + 1):
        scene.group.note_waiting("q", messages)
        clock[0] += 1
        if not scene.channel.is_open:
            scene.channel.opens()
            scene.channel.consumes()
    return len(scene.stand.channels) - before


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, scene: Scene) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(consumer, "time", SimpleNamespace(monotonic=lambda: now[0]))
    scene.channel.consumes()
    return now


def test_a_queue_that_has_messages_and_gives_none_is_subscribed_to_anew(
    scene: Scene, clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "floodgate.rabbitmq"):
        assert stand_still(scene, clock, STANDSTILL_SECONDS) == 1
    assert "5 messages wait in q, and for 10 s this worker was given none" in caplog.text
    scene.channel.delivers(1)
    assert "RabbitMQ delivers messages of q again: it had delivered none for 11 s" in caplog.text


def test_pauses_between_subscriptions_double_until_a_message_comes(scene: Scene, clock: list[float]) -> None:
    assert stand_still(scene, clock, STANDSTILL_SECONDS * (1 + 2 + 4)) == 3
    scene.channel.delivers(1)
    scene.seen[0].ack()
    assert stand_still(scene, clock, STANDSTILL_SECONDS) == 1


def test_a_queue_with_a_message_in_hand_does_not_stand_still(scene: Scene, clock: list[float]) -> None:
    scene.channel.delivers(1)
    assert stand_still(scene, clock, LONGEST_STANDSTILL_SECONDS) == 0


@pytest.mark.parametrize("other", [0, 4])
def test_a_queue_from_which_somebody_takes_messages_does_not_stand_still(
    scene: Scene, clock: list[float], other: int
) -> None:
    for _ in range(20):
        assert stand_still(scene, clock, STANDSTILL_SECONDS - 2) == 0
        scene.group.note_waiting("q", other)


def test_a_queue_that_is_being_handed_over_does_not_stand_still(scene: Scene, clock: list[float]) -> None:
    scene.channel.delivers(1)
    scene.subscription.drain()
    scene.seen[0].ack()
    for _ in range(20):
        scene.group.note_waiting("q", 5)
        clock[0] += STANDSTILL_SECONDS
    assert len(scene.stand.channels) == 1


def test_the_holder_of_messages_is_notified_of_their_loss_but_not_of_a_handover(scene: Scene) -> None:
    scene.channel.is_refused()
    scene.stand.fire()
    scene.channel.opens()
    scene.stand.down(RabbitMQUnreachableError("lost"))
    assert scene.lost == 2
    scene.stand.up()
    scene.channel.opens()
    scene.subscription.close()
    assert scene.lost == 2


def test_a_closed_group_declares_no_queues(scene: Scene) -> None:
    scene.channel.is_refused(MISSING)
    scene.stand.fire()
    scene.group.close()
    scene.stand.turn()
    assert scene.declared[0].cancelled()
    assert len(scene.stand.channels) == 1
