"""Growing pauses, and occasional log lines."""

from __future__ import annotations

import pytest

from floodgate.broker.process import outages
from floodgate.broker.process.outages import EVERY_SECONDS, Backoff, OutageLog


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(outages.time, "monotonic", lambda: now[0])
    return now


def test_pauses_double_up_to_the_limit_and_reset() -> None:
    backoff = Backoff(0.5, 3.0)
    assert [backoff.next_seconds() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    backoff.reset()
    assert backoff.next_seconds() == 0.5


def test_an_outage_is_logged_when_it_begins_every_minute_and_when_it_ends(clock: list[float]) -> None:
    outage, due = OutageLog(), []
    for _ in range(7):
        due.append(outage.is_due())
        clock[0] += EVERY_SECONDS / 3
    assert due == [True, False, False, True, False, False, True]
    assert outage.end() == 7 * EVERY_SECONDS / 3
    assert outage.end() is None
    assert outage.is_due()


def test_a_different_text_is_logged_at_once(clock: list[float]) -> None:
    outage = OutageLog()
    assert [outage.is_due(text) for text in ("away", "away", "refused")] == [True, False, True]


def test_an_unlogged_outage_ends_silently(clock: list[float]) -> None:
    outage = OutageLog()
    outage.begin()
    clock[0] += 5
    assert outage.lasted_seconds == 5
    assert outage.end() is None
