"""When a node of RabbitMQ is left, with its answers given by hand and timers that are fired by hand."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from floodgate.broker.amqp import liveness
from floodgate.broker.amqp.connection import ConnectionState
from floodgate.broker.amqp.liveness import ASKED_ABOUT, LONGEST_SPLIT_SECONDS, QUESTIONS, SPLIT_SECONDS, LivenessCheck
from floodgate.broker.errors import RabbitMQUnreachableError
from tests.hand_timers import HandTimers

SILENCE_SECONDS = 5.0
LOST = RabbitMQUnreachableError("gone")


class Node(HandTimers):
    """Replaces the event loop, the connection, pika's connection and its channel."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.state = ConnectionState.UP
        self.pika_connection = self
        self.bytes_received = 0
        self.consumers, self.messages = 1, 0
        self.answers = self.is_open = True
        self.asked: list[str | None] = []  # the queue of each question
        self.left: list[str] = []
        self.bounded: list[bool] = []
        self.blocked: Any = None
        self._close: Any = None

    def follow(self, up: Callable[[], None], down: Callable[[Any], None]) -> None:
        self.up, self.down = up, down

    def add_on_connection_blocked_callback(self, call: Callable[..., None]) -> None:
        self.blocked = call

    def add_on_connection_unblocked_callback(self, call: Callable[..., None]) -> None:
        self.unblocked = call

    def add_on_close_callback(self, call: Callable[..., None]) -> None:
        self._close = call

    def bound_unacknowledged(self, bounded: bool) -> None:
        self.bounded.append(bounded)

    def channel(self, on_open_callback: Callable[[Any], None]) -> Node:
        self._answer(lambda: on_open_callback(self))
        return self

    def flow(self, active: bool, callback: Callable[[Any], None]) -> None:
        assert active
        self.asked.append(None)
        self._answer(lambda: callback(active))

    def queue_declare(self, queue: str, passive: bool, callback: Callable[[Any], None]) -> None:
        assert passive
        self.asked.append(queue)
        ok = SimpleNamespace(method=SimpleNamespace(consumer_count=self.consumers, message_count=self.messages))
        self._answer(lambda: callback(ok))

    def leave(self, why: str) -> None:
        self.left.append(why)

    def refuse(self) -> None:
        """The queue asked about is missing, so RabbitMQ closes the channel."""
        self._close(self, Exception("404"))

    def _answer(self, call: Callable[[], None]) -> None:
        if self.answers:
            self.bytes_received += 1
            call()

    def look(self, times: int = 1) -> None:
        """The check's timer fires."""
        for _ in range(times):
            [timer] = self.planned
            self.planned.remove(timer)
            timer.call()


@pytest.fixture
def node() -> Iterator[Node]:
    loop = asyncio.new_event_loop()
    yield Node(loop)
    loop.close()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(liveness, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def watch(node: Node, *queues: str) -> LivenessCheck:
    check = LivenessCheck(node, node, SILENCE_SECONDS, lambda: queues)  # type: ignore[arg-type]
    node.up()
    return check


def test_a_node_that_answers_is_kept(node: Node) -> None:
    watch(node)
    node.look(10 * QUESTIONS)
    assert (node.left, set(node.asked)) == ([], {None})


def test_a_silent_node_is_left_before_the_time_is_over(node: Node) -> None:
    watch(node)
    node.look(3)
    node.answers = False
    asked = len(node.asked)
    node.look()  # the answers of before are found
    node.look(QUESTIONS - 2)
    assert node.left == []
    node.look()
    assert node.left == ["it has not answered for 5 s"]
    assert len(node.asked) == asked + 1  # a question that is not answered is not repeated


def test_anything_received_counts_as_an_answer(node: Node) -> None:
    watch(node)
    node.answers = False
    for _ in range(3 * QUESTIONS):
        node.bytes_received += 8  # a heartbeat
        node.look()
    assert node.left == []


def test_an_alarm_suspends_the_questions_and_the_bound_of_the_socket(node: Node) -> None:
    watch(node)
    node.look(3)
    node.blocked(node, None)
    node.answers = False
    asked = len(node.asked)
    node.look(3 * QUESTIONS)
    assert (node.left, len(node.asked)) == ([], asked)
    node.unblocked(node, None)
    assert node.bounded == [True, False, True]
    node.look(QUESTIONS)
    assert node.left[0] == "it has not answered for 5 s"


def test_a_node_without_the_leaders_of_its_queues_is_left_after_a_while(node: Node, clock: list[float]) -> None:
    watch(node, *(f"q{n}" for n in range(100)))
    node.look(2)
    assert len(set(node.asked)) == ASKED_ABOUT
    node.consumers = 0
    node.look()
    clock[0] += SPLIT_SECONDS - 1
    node.look()
    assert node.left == []
    clock[0] += 1
    node.look()
    assert node.left == ["it cannot reach the leaders of its queues"]


def test_a_queue_whose_messages_are_known_was_reached(node: Node, clock: list[float]) -> None:
    """RabbitMQ counts active consumers, and a queue may be without one."""
    watch(node, "q")
    node.consumers, node.messages = 0, 3
    for _ in range(30):
        node.look()
        clock[0] += 1
    assert node.left == []


def test_all_queues_are_asked_about_in_turn_and_their_messages_are_told(node: Node) -> None:
    names, told = [f"q{n}" for n in range(13)], []

    def tell(queue: str, messages: int) -> bool:
        told.append((queue, messages))
        return False

    LivenessCheck(node, node, SILENCE_SECONDS, lambda: names, tell)  # type: ignore[arg-type]
    node.up()
    node.messages = 7
    node.look()
    for _ in range(5):
        node.look(2 * math.ceil(len(names) / ASKED_ABOUT))
        assert {queue for queue, _ in told} == set(names)
        assert {messages for _, messages in told} == {7}
        told.clear()


def test_queues_that_may_stand_still_are_asked_about_in_each_round(node: Node) -> None:
    suspects = {f"q{n}" for n in range(3)}
    LivenessCheck(node, node, SILENCE_SECONDS, lambda: [f"q{n}" for n in range(50)], lambda queue, _: queue in suspects)  # type: ignore[arg-type]
    node.up()
    node.look(40)
    for _ in range(5):
        node.asked.clear()
        node.look()
        assert suspects <= set(node.asked)
        assert len(node.asked) == len(set(node.asked)) <= ASKED_ABOUT + len(suspects)


def test_an_election_in_time_keeps_the_node(node: Node, clock: list[float]) -> None:
    watch(node, "q")
    node.look()
    for _ in range(5):
        node.consumers = 0
        node.look()
        clock[0] += SPLIT_SECONDS - 1
        node.consumers = 1
        node.look()
    assert node.left == []


def test_nodes_are_left_less_and_less_often_if_all_are_without_leaders(node: Node, clock: list[float]) -> None:
    watch(node, "q")
    node.consumers = 0
    lasted = []
    for _ in range(8):
        since = clock[0]
        while not node.left:
            node.look()
            clock[0] += 1
        lasted.append(clock[0] - 1 - since)
        node.left.clear()
        node.down(LOST)
        node.up()
    assert lasted[:3] == pytest.approx([SPLIT_SECONDS * 2**n for n in range(3)], abs=2)
    assert lasted[-1] == pytest.approx(LONGEST_SPLIT_SECONDS, abs=2)


def test_a_missing_queue_costs_the_channel_and_nothing_else(node: Node) -> None:
    watch(node, "q")
    node.look(2)
    node.answers = False
    node.look()
    node.refuse()
    node.answers = True
    node.look(2)
    assert (node.asked[-1], node.left) == ("q", [])


def test_a_lost_or_closed_connection_is_no_longer_asked(node: Node) -> None:
    watch(node)
    node.down(LOST)
    assert node.planned == []
    node.up()
    node.state = ConnectionState.CLOSED
    node.look()
    assert node.planned == []
