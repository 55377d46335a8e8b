"""A subscription's channels, opened and closed by hand, with timers that are fired by hand."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pika.exceptions
import pytest

from broker.consumer import FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, Delivery, Subscription, Subscriptions
from broker.errors import RabbitMQUnreachableError
from broker.link import LinkState

MISSING = pika.exceptions.ChannelClosedByBroker(404, "NOT_FOUND - no queue 'q'")
HELD_TOO_LONG = pika.exceptions.ChannelClosedByBroker(406, "PRECONDITION_FAILED")


class Channel:
    """Stands for pika's."""

    def __init__(self, on_open: Callable[[Any], None]) -> None:
        self._on_open = on_open
        self.is_open = self.is_closing = self.is_closed = False
        self.acked: list[int] = []
        self._consumers: dict[str, object] = {}

    def add_on_close_callback(self, call: Callable[[Any, Exception], None]) -> None:
        self._on_close = call

    def add_on_cancel_callback(self, call: Callable[[Any], None]) -> None: ...

    def basic_qos(self, prefetch_count: int) -> None: ...

    def basic_consume(self, _queue: str, on_message: Any, *, callback: Any, **_options: Any) -> None:
        self._on_message, self._on_consuming = on_message, callback
        self._consumers["tag"] = on_message

    def basic_ack(self, tag: int) -> None:
        self.acked.append(tag)

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


class Stand:
    """Stands for the I/O thread and the link: calls run at once, timers when they are fired."""

    def __init__(self) -> None:
        self.state = LinkState.UP
        self.connection = self
        self.channels: list[Channel] = []
        self.planned: list[tuple[float, Callable[[], None]]] = []

    def follow(self, up: Callable[[], None], down: Callable[[Any], None]) -> None:
        self.up, self.down = up, down

    def open(self) -> None: ...

    def channel(self, on_open_callback: Callable[[Any], None]) -> Channel:
        self.channels.append(Channel(on_open_callback))
        return self.channels[-1]

    def call_soon(self, call: Callable[[], None]) -> None:
        call()

    def call_later(self, seconds: float, call: Callable[[], None]) -> tuple[float, Callable[[], None]]:
        self.planned.append((seconds, call))
        return self.planned[-1]

    def forget(self, timer: tuple[float, Callable[[], None]]) -> None:
        if timer in self.planned:
            self.planned.remove(timer)

    def fire(self) -> float:
        seconds, call = self.planned.pop(0)
        call()
        return seconds


class Scene:
    """One subscription, whose first channel is open."""

    def __init__(self) -> None:
        self.stand = Stand()
        self.group = Subscriptions(self.stand, self.stand)  # type: ignore[arg-type]
        self.seen: list[Delivery] = []
        self.declared: list[Future[None]] = []
        self.subscription = Subscription(self.group, "q", "worker", self.seen.append)
        self.group.add(self.subscription, self._declare)
        self.channel.opens()

    @property
    def channel(self) -> Channel:
        return self.stand.channels[-1]

    def _declare(self) -> Future[None]:
        self.declared.append(Future())
        return self.declared[-1]


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_pauses_double_up_to_the_longest_and_begin_anew_once_it_consumes(scene: Scene) -> None:
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


def test_an_answer_for_a_channel_that_is_gone_is_sent_on_none(scene: Scene) -> None:
    scene.channel.delivers(1)
    scene.channel.is_refused()
    scene.stand.fire()
    scene.channel.opens()
    scene.channel.delivers(1)
    old, new = scene.seen
    assert (old.live, new.live) == (False, True)
    old.ack()
    assert [channel.acked for channel in scene.stand.channels] == [[], []]
    new.ack()
    assert [channel.acked for channel in scene.stand.channels] == [[], [1]]


def test_a_message_that_a_left_channel_still_brings_is_not_taken(scene: Scene) -> None:
    left = scene.channel
    scene.stand.down(RabbitMQUnreachableError("lost"))
    left.delivers(1)
    assert scene.seen == []


def test_a_missing_queue_is_declared_and_until_that_is_done_not_again(scene: Scene) -> None:
    scene.channel.is_refused(MISSING)
    scene.stand.fire()
    scene.group.restore(scene.subscription, missing=True)
    scene.stand.fire()
    assert len(scene.declared) == 1
    scene.declared[0].set_result(None)
    assert len(scene.stand.channels) == 2


def test_a_queue_that_could_not_be_declared_is_tried_again(scene: Scene) -> None:
    scene.channel.is_refused(MISSING)
    scene.stand.fire()
    scene.declared[0].set_exception(RabbitMQUnreachableError("away"))
    scene.stand.fire()
    assert len(scene.declared) == 2


def test_a_suspended_queue_that_is_then_drained_does_not_come_back(scene: Scene) -> None:
    scene.subscription.suspend(5)
    scene.subscription.drain()
    assert (scene.stand.planned, len(scene.stand.channels)) == ([], 1)


def test_a_drained_queue_is_not_suspended_for_that_would_bring_it_back(scene: Scene) -> None:
    scene.subscription.drain()
    scene.subscription.suspend(5)
    assert scene.stand.planned == []


def test_a_closed_subscription_is_not_opened_with_the_next_connection(scene: Scene) -> None:
    scene.subscription.close()
    scene.stand.down(RabbitMQUnreachableError("lost"))
    scene.stand.up()
    assert len(scene.stand.channels) == 1
    assert not scene.group._members


def test_every_new_connection_has_the_queue_consumed_again(scene: Scene) -> None:
    scene.stand.down(RabbitMQUnreachableError("lost"))
    scene.stand.up()
    assert len(scene.stand.channels) == 2


def test_a_drained_queue_is_handed_over_with_the_answer_for_what_is_in_hand(scene: Scene) -> None:
    scene.channel.delivers(1)
    scene.subscription.drain()
    assert scene.channel.is_open
    scene.seen[0].ack()
    assert (scene.channel.acked, scene.channel.is_open) == ([1], False)
