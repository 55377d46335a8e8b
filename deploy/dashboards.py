"""Grafana's dashboards: one of what an operator looks at, and one of every metric in the table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from deploy.queries import observations, quantile, rate, value
from floodgate.broker.process import metrics as table
from floodgate.broker.process.metrics import BOT, TABLE, Metric, MetricKind, ProcessRole

_SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
_COLUMNS: Final = 24
_WIDTH: Final = 8
_HEIGHT: Final = 8
_NEWEST_SCHEMA: Final = 39  # of Grafana 10 and 11; newer ones read it


@dataclass(frozen=True, slots=True)
class Query:
    """A query with the name that its series get, of which ``{{label}}`` is a label's value."""

    expression: str
    legend: str


@dataclass(frozen=True, slots=True)
class Panel:
    """A plot over time. ``unit`` is Grafana's name of it."""

    title: str
    queries: Sequence[Query]
    unit: str = "short"
    description: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under one heading."""

    title: str
    panels: Sequence[Panel]


def dashboards() -> dict[str, dict[str, Any]]:
    """The dashboards as Grafana reads them, by file name."""
    return {
        "floodgate.json": _dashboard("floodgate", "Floodgate", _OVERVIEW),
        "floodgate-metrics.json": _dashboard("floodgate-metrics", "Floodgate: all metrics", list(_all_metrics())),
    }


def _quantiles(metric: Metric, *by: str) -> Sequence[Query]:
    shown = " ".join(f"{{{{{label}}}}}" for label in by)
    return [Query(quantile(share, metric, *by), f"p{round(share * 100)} {shown}".strip()) for share in (0.5, 0.99)]


_OVERVIEW: Final = (
    Row(
        "Now",
        (
            Panel(
                "Rate against the limit",
                (Query(value(table.SENT_LAST_SECOND), "{{bot}}"), Query(value(table.LIMIT), "limit of {{bot}}")),
                "cps",
            ),
            Panel("Share of the limit used", (Query(value(table.LIMIT_USED), "{{bot}}"),), "percentunit"),
            Panel(
                "Waiting",
                (
                    Query(value(table.QUEUED), "{{bot}} {{kind}} in queues"),
                    Query(value(table.JOBS_IN_LINE), "{{bot}} {{priority}} in lines"),
                ),
            ),
            Panel("Oldest job", (Query(value(table.OLDEST_JOB), "{{bot}} {{priority}}"),), "s"),
            Panel("Longest line of a chat", (Query(value(table.LONGEST_LINE), "{{bot}} {{priority}}"),)),
            Panel("Pauses in force", (Query(value(table.PAUSES), "{{bot}} {{scope}} {{cause}}"),)),
        ),
    ),
    Row(
        "Sending",
        (
            Panel("Calls by outcome", (Query(rate(table.SENDS, "outcome"), "{{outcome}}"),), "cps"),
            Panel("Time of a call", _quantiles(table.CALL), "s"),
            Panel("Waits by cause", (Query(observations(table.WAIT, "cause"), "{{cause}}"),), "cps"),
            Panel("Length of waits", _quantiles(table.WAIT, "cause"), "s"),
            Panel("Answers 429", (Query(rate(table.TOO_MANY_REQUESTS), "{{bot}} {{scope}}"),), "cps"),
            Panel("Time of a decision in the state store", _quantiles(table.ADMISSION), "s"),
        ),
    ),
    Row(
        "Failures",
        (
            Panel("Given up by reason", (Query(rate(table.DEAD, "reason"), "{{reason}}"),), "cps"),
            Panel("Dead letters", (Query(value(table.DEAD_LETTERS), "{{bot}}"),)),
            Panel("Unreachable chats", (Query(value(table.UNREACHABLE), "{{bot}}"),)),
        ),
    ),
    Row(
        "Health",
        (
            Panel("Parts that can be read", (Query(value(table.PART_UP), "{{part}}"),)),
            Panel("Queues without a consumer", (Query(value(table.UNREAD), "{{bot}} {{family}}"),)),
            Panel("Space of the state store used", (Query(value(table.STORE_USED), "used"),), "percentunit"),
            Panel(
                "Free disk of RabbitMQ",
                (Query(value(table.DISK_FREE), "{{node}}"), Query(value(table.DISK_LIMIT), "limit of {{node}}")),
                "decbytes",
            ),
            Panel("Alarms of RabbitMQ", (Query(value(table.RABBITMQ_ALARM), "{{node}} {{resource}}"),)),
            Panel("Lag of event loops", _quantiles(table.LOOP_LAG, "instance"), "s"),
            Panel("Time of RabbitMQ's confirm", _quantiles(table.CONFIRM), "s"),
            Panel(
                "Messages published to RabbitMQ, and reconnections",
                (
                    Query(rate(table.PUBLISHED), "{{outcome}}"),
                    Query(rate(table.RECONNECTS, "instance"), "reconnections of {{instance}}"),
                ),
                "cps",
            ),
        ),
    ),
    Row(
        "Updates",
        (
            Panel(
                "Updates",
                (
                    Query(rate(table.UPDATES_RECEIVED), "{{bot}} received"),
                    Query(rate(table.UPDATES_HANDLED), "{{bot}} {{outcome}}"),
                ),
                "cps",
            ),
            Panel("Lag of updates", _quantiles(table.UPDATE_LAG, BOT), "s"),
            Panel("Time of handlers", _quantiles(table.HANDLER, BOT), "s"),
        ),
    ),
    Row(
        "Gateway",
        (
            Panel("Requests", (Query(rate(table.REQUESTS), "{{kind}} {{status}}"),), "reqps"),
            Panel("Time of a request", _quantiles(table.REQUEST, "kind"), "s"),
            Panel("Callers that wait", (Query(value(table.CALLERS, "instance"), "{{instance}}"),)),
        ),
    ),
    Row(
        "Web pages",
        (
            Panel("Requests to the pages", (Query(rate(table.PAGES_ANSWERED), "{{page}} {{status}}"),), "reqps"),
            Panel("Time of a page", _quantiles(table.PAGES_TIME, "page"), "s"),
            Panel(
                "Open live parts, and refused logins",
                (
                    Query(value(table.EVENT_STREAMS, "instance"), "live parts at {{instance}}"),
                    Query(rate(table.LOGINS_REFUSED), "refused a second: {{cause}}"),
                ),
            ),
        ),
    ),
    Row(
        "Campaigns",
        (
            Panel("Campaigns", (Query(value(table.CAMPAIGNS), "{{bot}} {{state}}"),)),
            Panel("Recipients", (Query(value(table.RECIPIENTS), "{{campaign}} {{state}}"),)),
            Panel("Jobs released", (Query(rate(table.RELEASED), "{{bot}}"),), "cps"),
        ),
    ),
)


def _all_metrics() -> Iterator[Row]:
    """One panel a metric; metrics of the same processes under one heading."""
    groups: dict[tuple[ProcessRole, ...], list[Metric]] = {}
    for metric in TABLE:
        groups.setdefault(metric.roles, []).append(metric)
    for roles, found in groups.items():
        title = "all processes" if len(roles) > 3 else ", ".join(roles)
        yield Row(title.capitalize(), [_panel_of(metric) for metric in found])


def _panel_of(metric: Metric) -> Panel:
    legend = " ".join(f"{{{{{label}}}}}" for label in metric.labels) or "{{instance}}"
    by = tuple(metric.labels) or ("instance",)
    match metric.kind:
        case MetricKind.HISTOGRAM:
            return Panel(metric.name, _quantiles(metric, *by), "s", metric.help)
        case MetricKind.COUNTER:
            return Panel(metric.name, (Query(rate(metric, *by), legend),), "cps", metric.help)
        case MetricKind.GAUGE:
            return Panel(metric.name, (Query(value(metric, *by), legend),), _unit(metric), metric.help)


def _unit(metric: Metric) -> str:
    if metric.name.endswith("_ratio"):
        return "percentunit"
    if metric.unit == "bytes":
        return "decbytes"
    return "s" if metric.name.endswith("_seconds") else "short"


def _dashboard(uid: str, title: str, rows: Iterable[Row]) -> dict[str, Any]:
    return {
        "uid": uid,
        "title": title,
        "tags": ["floodgate"],
        "schemaVersion": _NEWEST_SCHEMA,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": [_datasource_choice(), _bot_choice()]},
        "panels": list(_panels(rows)),
    }


def _datasource_choice() -> dict[str, Any]:
    return {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}


def _bot_choice() -> dict[str, Any]:
    return {
        "name": "bot",
        "label": "Bot",
        "type": "query",
        "datasource": _SOURCE,
        "query": f"label_values({table.LIMIT.name}, {BOT})",
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "current": {"text": "All", "value": "$__all"},
        "allValue": ".*",
    }


def _panels(rows: Iterable[Row]) -> Iterator[dict[str, Any]]:
    number, top = 0, 0
    for row in rows:
        number += 1
        yield _placed(
            {"type": "row", "title": row.title, "collapsed": False, "panels": []}, number, 0, top, _COLUMNS, 1
        )
        top += 1
        for place, panel in enumerate(row.panels):
            number += 1
            across, down = place % (_COLUMNS // _WIDTH), place // (_COLUMNS // _WIDTH)
            yield _placed(_plot(panel), number, across * _WIDTH, top + down * _HEIGHT, _WIDTH, _HEIGHT)
        top += -(-len(row.panels) // (_COLUMNS // _WIDTH)) * _HEIGHT


def _placed(panel: dict[str, Any], number: int, x: int, y: int, width: int, height: int) -> dict[str, Any]:
    return {"id": number, **panel, "gridPos": {"x": x, "y": y, "w": width, "h": height}}


def _plot(panel: Panel) -> dict[str, Any]:
    return {
        "type": "timeseries",
        "title": panel.title,
        "description": panel.description,
        "datasource": _SOURCE,
        "targets": [
            {"refId": chr(ord("A") + place), "expr": query.expression, "legendFormat": query.legend}
            for place, query in enumerate(panel.queries)
        ],
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": {"tooltip": {"mode": "multi"}, "legend": {"displayMode": "list", "placement": "bottom"}},
    }
