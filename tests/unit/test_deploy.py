"""The files for Prometheus and Grafana are up to date, and every query in them names what the table of metrics has."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from deploy.__main__ import FOLDER, files
from deploy.alerts import ALERTS, Alert, rules
from deploy.dashboards import dashboards
from floodgate.broker.process.metrics import TABLE, Metric, MetricKind
from tests.docs.pages import ROOT, anchors

HISTOGRAM = ("_bucket", "_count", "_sum")
SERIES = {
    metric.name + suffix: metric
    for metric in TABLE
    for suffix in (HISTOGRAM if metric.kind is MetricKind.HISTOGRAM else ("",))
}
# Prometheus adds them to what it scrapes.
OF_THE_SCRAPE = {"instance", "job"}
_SELECTOR = re.compile(r"(floodgate_\w+)(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'(\w+)(=~|!~|!=|=)"([^"]*)"')
_GROUPING = re.compile(r"(?:by|on|without|ignoring)\s*\(([^)]*)\)")


def queries() -> Iterator[tuple[str, str]]:
    """Every query, with the name of its alert or panel."""
    for alert in ALERTS:
        yield alert.name, alert.query
    for dashboard in dashboards().values():
        for panel in dashboard["panels"]:
            for target in panel.get("targets", ()):
                yield f"{dashboard['title']}: {panel['title']}", target["expr"]


def faults(query: str) -> list[str]:
    """What a query names that the table does not have."""
    found, known = [], set(OF_THE_SCRAPE)
    for name, matchers in _SELECTOR.findall(query):
        if (metric := SERIES.get(name)) is None:
            found.append(name)
            continue
        known |= {*metric.labels, *(["le"] if name.endswith("_bucket") else [])}
        found += [f"{name}{{{label}}}" for label, _, _ in _MATCHER.findall(matchers) if label not in metric.labels]
        found += unknown_values(metric, matchers)
    grouped = {label for labels in _GROUPING.findall(query) for label in labels.replace(" ", "").split(",") if label}
    return found + sorted(grouped - known)


def unknown_values(metric: Metric, matchers: str) -> Iterator[str]:
    for label, operator, wanted in _MATCHER.findall(matchers):
        for value in wanted.split("|") if "~" in operator else [wanted]:
            if metric.labels.get(label) and "$" not in value and value not in metric.labels[label]:
                yield f'{metric.name}{{{label}="{value}"}}'


def test_the_files_are_up_to_date() -> None:
    made = files()
    assert {path.relative_to(FOLDER): path.read_text() for path in made} == {
        path.relative_to(FOLDER): text for path, text in made.items()
    }, "Renew them with: python -m deploy"


def test_no_dashboard_is_left_over() -> None:
    assert {path.name for path in (FOLDER / "grafana" / "dashboards").iterdir()} == dashboards().keys()


@pytest.mark.parametrize(("name", "query"), list(queries()), ids=lambda value: value if len(value) < 60 else "")
def test_a_query_names_metrics_and_labels_of_the_table(name: str, query: str) -> None:
    assert _SELECTOR.search(query), f"{name} queries nothing of Floodgate"
    assert faults(query) == []


@pytest.mark.parametrize(
    ("query", "fault"),
    [
        ("floodgate_sent_total", "floodgate_sent_total"),
        ("floodgate_sends_total_bucket", "floodgate_sends_total_bucket"),
        ('floodgate_up{bot="x"}', "floodgate_up{bot}"),
        ('floodgate_up{part="redis"}', 'floodgate_up{part="redis"}'),
        ('floodgate_queue_messages{kind=~"bulk|others"}', 'floodgate_queue_messages{kind="others"}'),
        ("sum by (chat) (floodgate_up)", "chat"),
        ("rate(floodgate_call_seconds[5m])", "floodgate_call_seconds"),
        ("sum by (le) (floodgate_call_seconds_count)", "le"),
    ],
)
def test_a_query_of_something_else_is_found(query: str, fault: str) -> None:
    assert faults(query) == [fault]


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_an_alert_leads_to_a_heading_that_says_what_to_do(alert: Alert) -> None:
    page, _, anchor = alert.runbook.partition("#")
    assert anchor in anchors((ROOT / page).read_text())


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_a_summary_names_labels_that_its_query_keeps(alert: Alert) -> None:
    labels = set(re.findall(r"\$labels\.(\w+)", alert.summary))
    kept = {label.strip() for labels in _GROUPING.findall(alert.query) for label in labels.split(",")}
    assert labels <= kept | {label for name, _ in _SELECTOR.findall(alert.query) for label in SERIES[name].labels}


def test_each_metric_of_the_table_has_a_panel() -> None:
    shown = json.dumps(dashboards()["floodgate-metrics.json"])
    assert [metric.name for metric in TABLE if metric.name not in shown] == []


def test_panels_neither_overlap_nor_share_an_id() -> None:
    for dashboard in dashboards().values():
        ids = [panel["id"] for panel in dashboard["panels"]]
        assert len(set(ids)) == len(ids)
        cells = [cell for panel in dashboard["panels"] for cell in cells_of(panel["gridPos"])]
        assert len(set(cells)) == len(cells)


def cells_of(place: dict[str, Any]) -> list[tuple[int, int]]:
    return [(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])]


def test_the_checked_in_rules_are_yaml_that_says_the_same() -> None:
    assert yaml.safe_load((FOLDER / "prometheus" / "alerts.yml").read_text()) == rules()
