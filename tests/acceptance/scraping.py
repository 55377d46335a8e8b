"""Reads the metrics that a process serves, as Prometheus does."""

from __future__ import annotations

import urllib.request
from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families

from floodgate.broker.process.metrics import TABLE, ProcessRole
from tests.processes import FloodgateProcess

Series = Mapping[tuple[str, frozenset[tuple[str, str]]], float]
ANYWHERE = {"FLOODGATE_METRICS_ADDRESS": "127.0.0.1:0"}


def url_of(process: FloodgateProcess) -> str:
    return process.said("metrics at http").rpartition("metrics at ")[2].split()[0]


def scraped(process: FloodgateProcess) -> Series:
    """All samples by name and labels, from the address in the process's log."""
    with urllib.request.urlopen(url_of(process), timeout=20) as response:
        text = response.read().decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(series: Series, name: str, **labels: str) -> float:
    return series.get((name, frozenset(labels.items())), -1.0)


def check_names(series: Series, role: ProcessRole) -> None:
    """Every series is one of the table's, and of this role."""
    allowed = {metric.name for metric in TABLE if role in metric.roles}
    bases = {name for name, _ in series if not name.startswith("process_")}
    bases = {name.rsplit("_", 1)[0] if name.endswith(("_bucket", "_sum", "_count")) else name for name in bases}
    assert bases <= allowed
