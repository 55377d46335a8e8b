"""Conclusions of benchmarks from rounds: medians, ratios to the former worker, and whether targets are met."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from benchmarks import bots, gateway, handlers, observability, throughput, updates
from benchmarks.stage.audience import Heard
from benchmarks.stage.drain import Drained
from benchmarks.stage.editions import APPS, CURRENT, FORMER
from benchmarks.stage.play import Result
from benchmarks.stage.programs import ROOT


def drained(contender: str, per_second: float, cpu_ms: float) -> Drained:
    return Drained(contender, per_second, cpu_ms, 0.05, 1.0, 0, 1.0)


def score(contender: str, *rates: float, cpu_ms: float = 1.0) -> throughput.Score:
    return throughput.Score.of([drained(contender, rate, cpu_ms) for rate in rates])


def heard(**changes: Any) -> Heard:
    usual = {"said": 10, "answered": 10, "doubled": 0, "disorder": 0, "per_second": 100.0}
    return Heard(**{**usual, "p50_seconds": 0.1, "p99_seconds": 0.2, "last_seconds": 10.0, **changes})


def test_a_score_is_the_median_of_its_rounds() -> None:
    assert score("floodgate, SQLite", 900, 100, 800).per_second == 800


def test_each_store_is_compared_with_the_former_worker_on_the_same_store() -> None:
    scores = [
        score("floodgate, SQLite", 2400, cpu_ms=0.4),
        score("former, SQLite", 800, cpu_ms=1.0),
        score("floodgate, Redis", 1200),
        score("former, Redis", 600),
    ]
    sqlite, redis = throughput.ratios(scores)
    assert (sqlite.rate, sqlite.cpu, sqlite.met) == (3.0, 0.4, True)
    assert (redis.rate, redis.met) == (2.0, False)


def test_a_worker_that_is_fast_enough_but_takes_too_much_cpu_misses_its_target() -> None:
    scores = [score("floodgate, SQLite", 4000, cpu_ms=0.5), score("former, SQLite", 800, cpu_ms=1.0)]
    assert not next(iter(throughput.ratios(scores))).met


def test_without_the_former_worker_there_is_no_ratio() -> None:
    assert not list(throughput.ratios([score("floodgate, SQLite", 2400)]))


def test_updates_are_compared_kind_by_kind_and_worker_by_worker() -> None:
    rates = {
        "floodgate, @on_update, 1 worker": 900.0,
        "floodgate, @on_update, 4 workers": 1.0,
        "former, @on_update, 1 worker": 300.0,
        "floodgate, Application, 1 worker": 500.0,
    }
    rounds = [updates.Round(name, heard(per_second=rate), heard(), 1.0, 1.0) for name, rate in rates.items()]
    assert updates.ratios(rounds) == {"@on_update": 3.0}


def slow_round(contender: str, plain: float, beside_slow: float, **changes: Any) -> handlers.Round:
    return handlers.Round(
        contender, heard(last_seconds=plain, **changes), heard(last_seconds=beside_slow), heard(last_seconds=60.0), 1.0
    )


@pytest.mark.parametrize(
    ("plain", "beside_slow", "changes", "enough"),
    [
        (15.0, 15.0, {}, True),
        (15.1, 15.1, {}, False),  # more than one and a half times grammY's time
        (11.0, 13.0, {}, False),  # the slow chat delayed the others
        (11.0, 11.0, {"answered": 9}, False),
        (11.0, 11.0, {"disorder": 1}, False),
    ],
)
def test_slow_handlers_are_compared_with_grammy_and_with_a_slow_chat(
    plain: float, beside_slow: float, changes: dict[str, Any], enough: bool
) -> None:
    ours = handlers.Score.of([slow_round("floodgate, @on_update, 1 worker", plain, beside_slow, **changes)])
    grammy = handlers.Score.of([slow_round(handlers.GRAMMY, 10.0, 10.0)])
    assert handlers.met([ours, grammy]) is enough


def test_peers_are_not_judged() -> None:
    assert handlers.met([handlers.Score.of([slow_round("python-telegram-bot", 99.0, 200.0, answered=1)])])


def bot_round(bots_: int, start_seconds: float, megabytes: float) -> bots.Round:
    return bots.Round("floodgate", bots_, 60.0, start_seconds, 1.0, megabytes, 6, 0.02, 0.5, 1.0)


def test_a_hundred_bots_are_judged_by_medians_and_fewer_are_not_judged() -> None:
    rounds = [bot_round(100, seconds, 200.0) for seconds in (9.0, 40.0, 10.0)] + [bot_round(30, 99.0, 900.0)]
    hundred, thirty = bots.medians(rounds)
    assert (hundred.bots, hundred.start_seconds, thirty.bots) == (100, 10.0, 30)
    assert bots.met([hundred, thirty])
    assert not bots.met([bot_round(100, 10.0, 251.0)])


def calls(contender: str, p50_ms: float, per_second: float, worker: float) -> gateway.Calls:
    return gateway.Calls(contender, p50_ms, 9.0, per_second, 9.0, 0.3, worker, 1.0)


@pytest.mark.parametrize(("p50_ms", "per_second", "enough"), [(9.0, 700, True), (9.1, 700, False), (9.0, 699, False)])
def test_a_gateway_is_judged_by_its_added_latency_and_by_its_workers_rate(
    p50_ms: float, per_second: float, enough: bool
) -> None:
    assert gateway.met([calls("straight", 1.0, 9000, 0), calls("floodgate", p50_ms, per_second, 1000)]) is enough


def test_the_result_of_a_scenario_misses_every_target_that_any_round_missed() -> None:
    rounds = [Result("busy", "floodgate", {"use": use}, missed, 1.0) for use, missed in ((0.9, ("x",)), (0.97, ()))]
    found = Result.median([*rounds, Result("busy", "floodgate", {"use": 0.98, "429": 1.0}, (), 1.0)])
    assert (found.figures, found.missed, found.seconds) == ({"use": 0.97, "429": 1.0}, ("x",), 3.0)


def test_a_benchmarked_edition_imports_its_own_tree_and_the_benchmarks_bots() -> None:
    assert CURRENT.root == ROOT
    assert FORMER.root != ROOT
    assert (APPS / "answering.py").exists()


def test_what_observing_costs_is_compared_with_the_turns_before_and_after() -> None:
    """The machine is slower from turn to turn. A span costs a quarter of a job of 0.5 ms, and 2.5 % of the jobs are
    sampled by default if a core sends 2000 a second."""
    observed = {"metrics": 1.01, "metrics, traces of no job": 1.025, "metrics, traces of all jobs": 1.275}
    parts = [part for each in observed.items() for part in (("nothing", 1.0), each)]
    turns = [
        observability.Turn(
            number // 6, *parts[number % 6][:1], 0.0005 * parts[number % 6][1] * (1 + number / 1000), 1, 1.0
        )
        for number in range(100)
    ]
    metrics, default, unsampled, sampled = observability.costs(turns)
    assert [each.median for each in (metrics, unsampled, sampled)] == pytest.approx([1.01, 1.025, 1.275])
    assert default.median == pytest.approx(1.025 + 0.25 * 0.025, abs=0.001)
    assert (metrics.missed, default.missed, sampled.missed) == (False, True, None)
    idle = dataclasses.replace(turns[50], jobs=0)
    assert observability.costs([*turns[:50], idle, *turns[51:]])[0].median == pytest.approx(1.01)
    reporting = [dataclasses.replace(each, periodic=0.01) for each in turns]
    assert observability.costs(reporting)[0].median == pytest.approx(1.02), "a hundredth of a core"


@pytest.mark.parametrize(("low", "high", "missed"), [(0.99, 1.03, False), (1.02, 1.04, None), (1.031, 1.2, True)])
def test_a_bound_is_met_or_missed_by_the_whole_interval(low: float, high: float, missed: bool | None) -> None:
    assert observability.Cost("metrics", 1.0, low, high).missed is missed


def test_the_interval_of_a_median_is_that_of_its_ranks() -> None:
    assert observability.interval_of_median(range(1, 21)) == (6, 15), "as in tables of the sign test"
    assert observability.interval_of_median([1.0] * 5) == (0.0, math.inf)
