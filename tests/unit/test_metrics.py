"""The registry of metrics, and what Prometheus reads of it."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path
from typing import get_args

import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from floodgate.actors.outcomes import _NAMES, FailureReason, Outcome
from floodgate.broker.admission.contract import Scope
from floodgate.broker.messages.job import Priority
from floodgate.broker.process import metrics
from floodgate.broker.process.exposition import render
from floodgate.broker.process.metrics import (
    BOT,
    DEAD,
    INFO,
    LOOP_LAG,
    OTHER,
    SENDS,
    TABLE,
    WAIT,
    Metric,
    MetricKind,
    Metrics,
    ProcessRole,
)
from floodgate.producer.campaigns.states import CampaignState, RecipientState
from tests.integration.prometheus import program

ROOT = Path(__file__).parents[2]
PRODUCT = ("broker", "actors", "producer", "floodgate")


def exposed(counted: Metrics) -> dict[str, list[Sample]]:
    """The samples by name, as Prometheus' own parser reads them, without those of the process itself."""
    samples: dict[str, list[Sample]] = {}
    for family in text_string_to_metric_families(render(counted).decode()):
        for sample in family.samples:
            if not sample.name.startswith("process_"):
                samples.setdefault(sample.name, []).append(sample)
    return samples


def filled() -> Metrics:
    """A registry with a series of every metric."""
    counted = Metrics()
    for metric in TABLE:
        labels = ["news" if name == BOT else (values or ("x",))[0] for name, values in metric.labels.items()]
        match metric.kind:
            case MetricKind.COUNTER:
                counted.count(metric, *labels)
            case MetricKind.GAUGE:
                counted.set(metric, 1.5, *labels)
            case MetricKind.HISTOGRAM:
                counted.observe(metric, 0.3, *labels)
    return counted


def test_each_value_is_under_its_labels() -> None:
    counted = Metrics()
    counted.count(SENDS, "news", "sent")
    counted.count(SENDS, "news", "sent", by=2)
    counted.count(SENDS, "news", "retry")
    counted.set(INFO, 1.0, "worker", "0.2.0")
    assert counted.values(SENDS) == {("news", "sent"): 3.0, ("news", "retry"): 1.0}
    samples = exposed(counted)
    assert [sample.labels for sample in samples["floodgate_process_info"]] == [{"role": "worker", "version": "0.2.0"}]
    assert {sample.labels["outcome"]: sample.value for sample in samples["floodgate_sends_total"]} == {
        "sent": 3.0,
        "retry": 1.0,
    }


def test_an_observation_on_a_buckets_bound_is_in_that_bucket() -> None:
    counted = Metrics()
    for seconds in (0.25, 0.26, 1e9):
        counted.observe(WAIT, seconds, "news", "rate")
    buckets = {sample.labels["le"]: sample.value for sample in exposed(counted)["floodgate_wait_seconds_bucket"]}
    assert (buckets["0.05"], buckets["0.25"], buckets["1.0"], buckets["3600.0"], buckets["+Inf"]) == (0, 1, 2, 2, 3)
    assert counted.distributions(WAIT)["news", "rate"].count == 3
    assert exposed(counted)["floodgate_wait_seconds_sum"][0].value == pytest.approx(0.51 + 1e9)


def test_what_is_read_does_not_change_afterwards() -> None:
    counted = Metrics()
    counted.observe(LOOP_LAG, 0.1)
    before = counted.distributions(LOOP_LAG)[()]
    counted.observe(LOOP_LAG, 0.1)
    assert before.count == 1


def test_the_counters_of_a_role_start_at_zero_for_its_bots() -> None:
    """An alert on an increase would miss the first increment of a series that begins with it."""
    worker = Metrics(ProcessRole.WORKER, ["news", "shop"])
    assert worker.values(SENDS)["shop", "paused"] == 0.0
    assert len(worker.values(DEAD)) == 2 * len(DEAD.labels["reason"])
    assert Metrics(ProcessRole.GATEWAY, ["news"]).values(SENDS) == {}


def test_a_metric_has_no_more_series_than_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "MOST_SERIES", 3)
    counted = Metrics()
    for number in range(10):
        counted.count(SENDS, f"bot{number}", "sent")
        counted.observe(WAIT, 1.0, f"bot{number}", "rate")
    assert counted.values(SENDS) == {**{(f"bot{n}", "sent"): 1.0 for n in range(3)}, (OTHER, OTHER): 7.0}
    assert counted.distributions(WAIT)[OTHER, OTHER].count == 7


def test_a_gauge_that_is_followed_is_read_when_it_is_asked_for() -> None:
    counted, depth = Metrics(), [1.0]
    counted.follow(metrics.CALLERS, lambda: depth[0])
    depth[0] = 5.0
    assert exposed(counted)["floodgate_gateway_callers"][0].value == 5.0


def test_prometheus_own_checker_accepts_every_metric() -> None:
    text = render(filled())
    checked = subprocess.run([program("promtool"), "check", "metrics"], input=text, capture_output=True, timeout=60)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")


def test_every_metric_of_the_table_is_exposed_and_no_other() -> None:
    families = text_string_to_metric_families(render(filled()).decode())
    names = {f"{family.name}_total" if family.type == "counter" else family.name for family in families}
    assert {name for name in names if not name.startswith("process_")} == {metric.name for metric in TABLE}


@pytest.mark.checkout
def test_every_metric_is_produced_somewhere() -> None:
    """Each row's constant is given to ``count``, ``set``, ``observe`` or ``follow`` by a part of the product."""
    rows = {name for name, value in vars(metrics).items() if isinstance(value, Metric)}
    assert len(rows) == len(TABLE), "a metric is not in the table"
    produced = {
        call.args[0].id
        for folder in PRODUCT
        for path in (ROOT / folder).rglob("*.py")
        if "process.metrics" in (text := path.read_text())
        for call in ast.walk(ast.parse(text))
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr in ("count", "set", "observe", "follow")
        and call.args
        and isinstance(call.args[0], ast.Name)
    }
    assert rows - produced == set()


def test_no_label_names_a_chat_a_job_or_a_user() -> None:
    assert {name for metric in TABLE for name in metric.labels} <= {
        *("bot", "outcome", "cause", "scope", "reason", "kind", "status", "part", "priority"),
        *("family", "calls", "state", "campaign", "role", "version", "node", "resource", "page"),
    }


def test_the_table_has_the_words_that_are_counted() -> None:
    """A word that it lacks would be counted, but would not start at zero."""
    assert set(SENDS.labels["outcome"]) == {_NAMES[kind] for kind in get_args(Outcome)}
    ends = {state.name.lower() for state in RecipientState} - {"released", "held_out"}
    assert set(metrics.ENDED.labels["outcome"]) == ends
    assert set(metrics.CAMPAIGNS.labels["state"]) == set(CampaignState)
    assert set(metrics.PRIORITIES) == set(Priority)
    assert set(metrics.SCOPES) == set(Scope)
    assert set(FailureReason) <= set(DEAD.labels["reason"])


def test_names_follow_prometheus_conventions() -> None:
    for metric in TABLE:
        assert metric.name.startswith("floodgate_")
        assert metric.name.endswith("_total") == (metric.kind is MetricKind.COUNTER), metric.name
        assert (metric.unit == "seconds") == metric.name.endswith(("_seconds", "_seconds_total")), metric.name
        assert bool(metric.buckets) == (metric.kind is MetricKind.HISTOGRAM), metric.name
