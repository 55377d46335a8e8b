"""The arithmetic behind benchmark tables."""

from __future__ import annotations

import pytest

from benchmarks.stage.figures import disorder, most_within, percentile, steady_rate, with_answers
from benchmarks.stage.loads import Line, broadcast
from benchmarks.stage.pace import Sample, rate
from benchmarks.stage.scenarios import Target, scenarios


def test_the_steady_rate_excludes_a_slow_start_and_a_slow_tail() -> None:
    even = [10 + n / 20 for n in range(90)]
    assert round(steady_rate([n / 2 for n in range(5)] + even + [20 + n for n in range(5)]), 6) == 20


def test_too_few_arrivals_have_no_rate() -> None:
    assert steady_rate([1.0, 2.0, 3.0]) == 0


def test_a_window_excludes_its_start_and_includes_its_end() -> None:
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


def test_a_percentile_is_an_observed_value() -> None:
    assert percentile([3.0, 1.0, 2.0], 0.99) == 3.0
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0


def test_a_rate_is_measured_from_its_first_sample() -> None:
    samples = [Sample(at / 10, 500 + at * 10) for at in range(101)]
    assert round(rate(samples)) == 100


def test_a_target_without_a_measurement_is_missed() -> None:
    assert Target("use", at_least=0.97).met({"use": 0.97})
    assert not Target("use", at_least=0.97).met({})
    assert not Target("429", at_most=0).met({"429": 1.0})


def test_every_text_of_a_scenario_is_unique_and_identifies_its_line() -> None:
    for scenario in scenarios(quick=False):
        assert len({line.text for line in scenario.lines}) == len(scenario.lines), scenario.name


def test_every_answer_time_occurs_after_each_wait() -> None:
    waits = with_answers([0.1, 0.2], (40, 80))
    assert min(waits) == pytest.approx(0.14)
    assert max(waits) == pytest.approx(0.28)
    assert percentile(waits, 0.5) == pytest.approx(0.24, abs=0.002)


def test_an_instant_answer_adds_no_time() -> None:
    assert set(with_answers([0.1], (0, 0))) == {0.1}
