"""Estimating how late a call arrived from its duration."""

from __future__ import annotations

import random
from datetime import timedelta

import pytest

from floodgate.actors.lateness import FIRST_CALLS, UsualDuration

PROMPT = timedelta()


def used_to(seconds: float, calls: int = 100) -> UsualDuration:
    usual = UsualDuration()
    for _ in range(calls):
        usual.lateness(seconds)
    return usual


def test_the_whole_duration_of_a_first_call_may_be_lateness() -> None:
    usual = UsualDuration()
    late = [usual.lateness(0.06) for _ in range(FIRST_CALLS + 1)]
    assert late == [timedelta(seconds=0.06)] * FIRST_CALLS + [PROMPT]


def test_slow_first_calls_do_not_set_the_usual_duration() -> None:
    usual = UsualDuration()
    for seconds in (0.3, 0.3, 0.2, 0.1, 0.05, 0.05, 0.05, 0.05):
        usual.lateness(seconds)
    assert usual.lateness(0.1).total_seconds() == pytest.approx(0.05)


def test_a_call_that_took_longer_than_usual_was_late_by_the_excess() -> None:
    assert used_to(0.05).lateness(0.2).total_seconds() == pytest.approx(0.15)


def test_a_quick_call_was_not_late() -> None:
    assert used_to(0.05).lateness(0.001) == PROMPT


def test_normal_variation_of_answers_costs_a_bot_less_than_half_a_percent_of_its_rate() -> None:
    dice = random.Random(1)
    usual = used_to(0.1)
    late = [usual.lateness(dice.uniform(0.08, 0.12)).total_seconds() for _ in range(1000)]
    assert sum(late) / len(late) < 0.005


def test_the_whole_excess_of_a_long_call_may_be_lateness() -> None:
    assert used_to(0.05).lateness(10).total_seconds() == pytest.approx(9.95)


def test_a_few_stalls_do_not_change_the_usual_duration() -> None:
    usual = used_to(0.05)
    for _ in range(5):
        usual.lateness(1.0)
    assert usual.lateness(0.2).total_seconds() > 0.13


def test_the_usual_duration_soon_follows_a_slower_bot_api() -> None:
    usual = used_to(0.05)
    assert [usual.lateness(0.5) for _ in range(150)][-1] == PROMPT
