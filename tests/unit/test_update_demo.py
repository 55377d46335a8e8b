"""The arithmetic of ``floodgate demo --updates``: it must not report success when there are errors."""

from __future__ import annotations

from floodgate.demo.updates import UpdateDemoOutcome, UpdateDemoSize, outcome_of

SIZE = UpdateDemoSize(users=2, messages=2)
RIGHT = [(1, "1"), (2, "1"), (1, "2"), (2, "2")]


def test_one_answer_for_everyone_in_order_adds_up() -> None:
    assert outcome_of(RIGHT, SIZE, 0, 0) == UpdateDemoOutcome(4, 4, 0, 0, 0, 0, 0)
    assert outcome_of(RIGHT, SIZE, 0, 0).adds_up


def test_missing_repeated_or_disordered_answers_do_not_add_up() -> None:
    missing = outcome_of(RIGHT[:3], SIZE, 0, 0)
    twice = outcome_of([*RIGHT, (2, "2")], SIZE, 0, 0)
    disordered = outcome_of([(1, "2"), (1, "1"), (2, "1"), (2, "2")], SIZE, 0, 0)
    assert (missing.missing, twice.twice, disordered.disordered) == (1, 1, 1)
    assert not any(one.adds_up for one in (missing, twice, disordered))
    assert not outcome_of(RIGHT, SIZE, 1, 0).adds_up
    assert not outcome_of(RIGHT, SIZE, 0, 1).adds_up
