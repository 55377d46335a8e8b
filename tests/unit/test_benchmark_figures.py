"""The arithmetic behind benchmark tables."""

from __future__ import annotations

import pytest

from benchmarks.stage.figures import disorder, most_within, percentile, steady_rate, with_answers
from benchmarks.stage.loads import Line, broadcast
from benchmarks.stage.pace import Sample, rate
from benchmarks.stage.scenarios import Target, scenarios


def test_the_steady_rate_leaves_a_slow_start_and_a_slow_tail_out() -> None:
    even = [10 + n / 20 for n in range(90)]
    assert round(steady_rate([n / 2 for n in range(5)] + even + [20 + n for n in range(5)]), 6) == 20


def test_too_few_arrivals_have_no_rate() -> None:
    assert steady_rate([1.0, 2.0, 3.0]) == 0


def test_a_window_is_open_at_its_start_and_closed_at_its_end() -> None:
    assert most_within([0.0, 0.5, 1.0, 1.4], 1.0) == 3
    assert most_within([0.0, 1.0, 2.0], 1.0) == 1
    assert most_within([], 1.0) == 0


def test_only_lines_of_one_chat_and_priority_can_be_out_of_order() -> None:
    lines = [*broadcast(2, parts=2), Line("interactive", 10_000, "reply", bulk=False)]
    in_turn = ["reply", "user 1 part 0", "user 0 part 0", "user 1 part 1", "user 0 part 1"]
    assert disorder(lines, in_turn) == 0
    assert disorder(lines, ["user 0 part 1", "user 0 part 0"]) == 1


def test_a_repetition_does_not_count_as_disorder() -> None:
    assert disorder(broadcast(1, parts=2), ["user 0 part 0", "user 0 part 1", "user 0 part 0"]) == 0


def test_a_percentile_is_a_value_that_was_seen() -> None:
    assert percentile([3.0, 1.0, 2.0], 0.99) == 3.0
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0


def test_a_pace_counts_from_its_first_sample() -> None:
    samples = [Sample(at / 10, 500 + at * 10) for at in range(101)]
    assert round(rate(samples)) == 100


def test_a_target_is_missed_by_what_was_not_measured() -> None:
    assert Target("use", at_least=0.97).met({"use": 0.97})
    assert not Target("use", at_least=0.97).met({})
    assert not Target("429", at_most=0).met({"429": 1.0})


def test_every_text_of_a_scenario_is_unique_so_that_an_arrival_tells_its_line() -> None:
    for scenario in scenarios(quick=False):
        assert len({line.text for line in scenario.lines}) == len(scenario.lines), scenario.name


def test_answers_of_every_length_follow_each_wait() -> None:
    waits = with_answers([0.1, 0.2], (40, 80))
    assert min(waits) == pytest.approx(0.14)
    assert max(waits) == pytest.approx(0.28)
    assert percentile(waits, 0.5) == pytest.approx(0.24, abs=0.002)


def test_an_answer_that_takes_no_time_adds_none() -> None:
    assert set(with_answers([0.1], (0, 0))) == {0.1}
