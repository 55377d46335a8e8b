"""The dead letters that the pages show: read in the background, once for all viewers, within bounds."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from floodgate.broker.amqp.async_queue_reader import QueuedMessage
from floodgate.broker.messages import queue_names
from floodgate.broker.messages.dead_letters import DeadLetter
from floodgate.letters import reading
from floodgate.letters.criteria import Criteria
from floodgate.letters.replay import Replay
from floodgate.web import letter_index
from floodgate.web.actions import confirm
from floodgate.web.letter_index import LetterIndex
from floodgate.web.viewer import Action
from tests.integration.web.conftest import BOT, Desk
from tests.waiting import until

DEAD = queue_names.dead_queue(BOT)


class Gate:
    """Holds the reading of letters at the one with a number, until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
        self.reads = 0
        self.opened = threading.Event()
        self._at = at
        self._read = reading.read
        monkeypatch.setattr(reading, "read", self.read)

    def read(self, queue: str, message: QueuedMessage) -> DeadLetter:
        self.reads += 1
        if self.reads == self._at:
            assert self.opened.wait(20)
        return self._read(queue, message)


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "PAGE", 2)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch, small_pages: None) -> Iterator[Gate]:
    monkeypatch.setattr(letter_index, "PAGE_SECONDS", 0.1)
    made = Gate(monkeypatch, at=5)
    yield made
    made.opened.set()


def bury(desk: Desk, count: int) -> None:
    for number in range(count):
        desk.bury(desk.job(f"letter-{number}"))


def test_letters_are_shown_as_far_as_they_have_been_read(desk: Desk, gate: Gate) -> None:
    bury(desk, 6)
    until(lambda: "Reading: 4 of 6 so far" in desk.get("/dead-letters"))
    assert "4 match" in desk.get("/dead-letters")
    confirmation = desk.confirmation(Action.DROP_LETTERS)
    assert ("still being counted" in confirmation, "<button" in confirmation) == (True, False)
    answer = desk.http.post(f"/actions/{Action.DROP_LETTERS}", data={"touches": "100"})
    assert answer.status_code == 409, "what has not been counted cannot be confirmed"
    gate.opened.set()
    until(lambda: "6 match" in desk.get("/dead-letters"))


def test_letters_that_have_not_changed_are_not_read_again(
    desk: Desk, small_pages: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(letter_index, "FRESH", letter_index.FRESH * 0)
    bury(desk, 3)
    until(lambda: "3 match" in desk.get("/dead-letters"))
    gate = Gate(monkeypatch, at=0)
    for _ in range(3):
        assert "3 match" in desk.get("/dead-letters")
    assert gate.reads == 0
    bury(desk, 1)
    until(lambda: "4 match" in desk.get("/dead-letters"))


def test_letters_beyond_the_bound_are_counted_and_left_alone(
    desk: Desk, small_pages: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(letter_index, "MOST_LETTERS", 4)
    bury(desk, 6)
    until(lambda: "4 match" in desk.get("/dead-letters"))
    assert "2 letters beyond the oldest 4 are not shown" in desk.get("/dead-letters")
    desk.do(Action.DROP_LETTERS)
    assert desk.depth(DEAD) == 2


def test_an_action_ends_a_reading_that_is_under_way(desk: Desk, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    bury(desk, 4)
    until(lambda: "4 match" in desk.get("/dead-letters"))
    monkeypatch.setattr(letter_index, "FRESH", letter_index.FRESH * 0)
    monkeypatch.setattr(letter_index, "STALE", letter_index.STALE * 0)
    desk.get("/dead-letters")  # begins another reading, which stops at the gate
    confirmation = desk.confirmation(Action.DROP_LETTERS)
    letters: LetterIndex = desk.pages.app.state.services.letters
    with ThreadPoolExecutor(1) as thread:
        dropped = thread.submit(desk.agree, Action.DROP_LETTERS, confirmation)
        until(letters._interrupted.is_set)
        gate.opened.set()
        ended = dropped.result()
    assert "4 deleted." in ended, ended
    assert gate.reads == 4 + 2 + 4, "the first reading, the page that was interrupted, and the action's own"
    assert desk.depth(DEAD) == 0


def test_an_action_that_the_end_of_the_process_interrupts_says_so_and_can_be_taken_again(
    desk: Desk, again: Callable[[Desk], Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    bury(desk, 2)
    begun, stopping = threading.Event(), threading.Event()

    def endless(_run: Replay, _queue: str, _most: int, _criteria: Criteria, seen: Callable[[int], Any]) -> None:
        begun.set()
        while True:
            stopping.wait(0.01)
            seen(1)

    with monkeypatch.context() as patched:
        patched.setattr(Replay, "run", endless)
        patched.setattr(confirm, "PAGE_SECONDS", 0.0)
        until(lambda: "2 match" in desk.get("/dead-letters"))
        assert "<h1>Under way</h1>" in desk.do(Action.REPLAY_LETTERS)
        assert begun.wait(10)
        later = again(desk)
    assert "The process stopped before the action was complete" in later.get("/audit")
    until(lambda: "2 match" in later.get("/dead-letters"))
    assert "2 replayed" in later.do(Action.REPLAY_LETTERS)
