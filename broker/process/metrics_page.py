"""Generates the tables of metrics in docs/monitoring.md: ``python -m floodgate.broker.process.metrics_page``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from floodgate.broker.process.metrics import TABLE, Metric, ProcessRole

PAGE: Final = Path("docs/monitoring.md")  # in the repository, which is the working directory
HEADING: Final = "## All metrics\n"
_HEAD: Final = """\
Generated from the table in `broker/process/metrics.py`. A histogram `x` has the series `x_bucket`, `x_sum` and
`x_count`.

"""
_COLUMNS: Final = "| name | type | labels | meaning |\n|---|---|---|---|\n"


def tables() -> str:
    """Generate the tables: the metrics of the processes, then those of the exporter."""
    processes = [metric for metric in TABLE if metric.roles != (ProcessRole.EXPORTER,)]
    exporter = [metric for metric in TABLE if metric.roles == (ProcessRole.EXPORTER,)]
    return (
        f"{_HEAD}### Of the processes\n\n{_columns(processes, roles=True)}\n"
        f"### Of `floodgate metrics`\n\n{_columns(exporter, roles=False)}"
    )


def page() -> str:
    """Generate the whole page, with up-to-date tables."""
    head, _, _ = PAGE.read_text().partition(HEADING)
    return f"{head}{HEADING}\n{tables()}"


def _columns(metrics: Iterable[Metric], *, roles: bool) -> str:
    return _COLUMNS + "".join(
        f"| `{metric.name}` | {metric.kind} | {_labels(metric)} | {metric.help}{_roles(metric) if roles else ''} |\n"
        for metric in metrics
    )


def _labels(metric: Metric) -> str:
    return "; ".join(_label(name, values) for name, values in metric.labels.items())


def _label(name: str, values: tuple[str, ...]) -> str:
    if name == "reason":
        return "`reason`: see [dead letters](operating.md#dead-letters)"
    return f"`{name}`: {', '.join(values)}" if values else f"`{name}`"


def _roles(metric: Metric) -> str:
    return " *All processes.*" if len(metric.roles) > 3 else f" *{', '.join(metric.roles).capitalize()}.*"


if __name__ == "__main__":
    PAGE.write_text(page())
