"""Makes queries in Prometheus' language of the metrics in the table."""

from __future__ import annotations

from typing import Final

from floodgate.broker.process.metrics import BOT, Metric

# Grafana replaces both.
SELECTED_BOTS: Final = f'{BOT}=~"$bot"'
INTERVAL: Final = "$__rate_interval"


def labelled(metric: Metric, **values: str) -> str:
    """Select a metric's series with these values of labels."""
    matchers = ",".join(f'{name}="{value}"' for name, value in values.items())
    return f"{metric.name}{{{matchers}}}" if matchers else metric.name


def value(metric: Metric, *by: str) -> str:
    """The value of a gauge, once if several exporters report it. By its own labels if none are given."""
    return f"max by ({', '.join(by or metric.labels)}) ({_selected(metric)})" if by or metric.labels else metric.name


def rate(metric: Metric, *by: str) -> str:
    """The increase per second of a counter, over all processes. By its own labels if none are given."""
    return f"sum by ({', '.join(by or metric.labels)}) (rate({_selected(metric)}[{INTERVAL}]))"


def observations(metric: Metric, *by: str) -> str:
    """The observations per second of a histogram, over all processes."""
    return f"sum by ({', '.join(by)}) (rate({_selected(metric, '_count')}[{INTERVAL}]))"


def quantile(share: float, metric: Metric, *by: str, interval: str = INTERVAL) -> str:
    """A quantile of a histogram, over all processes."""
    series = _selected(metric, "_bucket") if interval == INTERVAL else f"{metric.name}_bucket"
    return f"histogram_quantile({share}, sum by ({', '.join(('le', *by))}) (rate({series}[{interval}])))"


def _selected(metric: Metric, suffix: str = "") -> str:
    return f"{metric.name}{suffix}{{{SELECTED_BOTS}}}" if BOT in metric.labels else f"{metric.name}{suffix}"
