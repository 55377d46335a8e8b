"""Pauses that grow, and log lines now and then."""

from __future__ import annotations

import pytest

from floodgate.broker.process import outages
from floodgate.broker.process.outages import EVERY_SECONDS, Backoff, OutageLog


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(outages.time, "monotonic", lambda: now[0])
    return now


def test_pauses_double_up_to_the_bound_and_begin_anew() -> None:
    backoff = Backoff(0.5, 3.0)
    assert [backoff.next_seconds() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    backoff.reset()
    assert backoff.next_seconds() == 0.5


def test_an_outage_is_told_at_first_then_every_minute_then_how_long_it_lasted(clock: list[float]) -> None:
    outage, due = OutageLog(), []
    for _ in range(7):
        due.append(outage.is_due())
        clock[0] += EVERY_SECONDS / 3
    assert due == [True, False, False, True, False, False, True]
    assert outage.end() == 7 * EVERY_SECONDS / 3
    assert outage.end() is None
    assert outage.is_due()


def test_another_text_is_due_at_once(clock: list[float]) -> None:
    outage = OutageLog()
    assert [outage.is_due(text) for text in ("away", "away", "refused")] == [True, False, True]


def test_an_outage_that_nobody_heard_of_ends_without_a_word(clock: list[float]) -> None:
    outage = OutageLog()
    outage.begin()
    clock[0] += 5
    assert outage.lasted_seconds == 5
    assert outage.end() is None
