"""The history of a bot as points of a plot and rows of a table, read once for all viewers.

Bounds: a plot has at most :data:`MOST_POINTS` points and a table a tenth of that. What was read is kept for a while, by
bot and span: at most as many as there are.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum
from typing import Any, Final

from floodgate.broker.state.activity import History, Resolution, Series
from floodgate.web.service_threads import PartOfPage, attempt

MOST_POINTS: Final = 360
ROWS_SHARE: Final = 10
FRESH_SECONDS: Final = 5.0

_WAITS: Final = {
    "rate": Series.WAITS_RATE,
    "line": Series.WAITS_LINE,
    "pause": Series.WAITS_PAUSE,
    "in flight": Series.WAITS_IN_FLIGHT,
    "outage": Series.WAITS_OUTAGE,
    "store": Series.WAITS_STORE,
}


class Span(Enum):
    """How far back a plot reaches: its name in URLs, the buckets it reads, its length and the length of a point."""

    TEN_MINUTES = ("10m", Resolution.SECOND, timedelta(minutes=10), 2)
    SIX_HOURS = ("6h", Resolution.MINUTE, timedelta(hours=6), 60)
    SEVEN_DAYS = ("7d", Resolution.MINUTE, timedelta(days=7), 1800)

    @property
    def label(self) -> str:
        """Its name in URLs."""
        return str(self.value[0])

    @property
    def resolution(self) -> Resolution:
        """The buckets it reads."""
        resolution: Resolution = self.value[1]
        return resolution

    @property
    def length(self) -> timedelta:
        """How far back it reaches."""
        length: timedelta = self.value[2]
        return length

    @property
    def step_seconds(self) -> int:
        """The length of a point."""
        return int(self.value[3])


@dataclass(frozen=True, slots=True)
class PlotLines:
    """Lines of a plot over the same times. A gap is None."""

    times: Sequence[int]
    """When each point begins, in seconds of Unix time."""
    lines: Mapping[str, Sequence[float | None]]

    def as_json(self) -> dict[str, Any]:
        """Return the plot as the pages' JavaScript reads it."""
        series = [{"label": label, "values": values} for label, values in self.lines.items()]
        return {"x": self.times, "series": series}


def rate_lines(history: History, step_seconds: int) -> PlotLines:
    """Return the messages sent a second, and the limit."""
    times, groups = _grouped(history, step_seconds)
    return PlotLines(
        times,
        {
            "sent a second": [_per_second(history, Series.SENT, group, step_seconds) for group in groups],
            "limit": [_extreme(history, Series.LIMIT, group, min) for group in groups],
        },
    )


def wait_lines(history: History, step_seconds: int) -> PlotLines:
    """Return the waits a second, by cause."""
    times, groups = _grouped(history, step_seconds)
    lines = {
        cause: [_per_second(history, series, group, step_seconds) for group in groups]
        for cause, series in _WAITS.items()
    }
    return PlotLines(times, lines)


def queue_lines(history: History, step_seconds: int) -> PlotLines:
    """Return the jobs that wait in lines, by priority, at most in each step."""
    times, groups = _grouped(history, step_seconds)
    gauges = {"interactive": Series.WAITING_INTERACTIVE, "bulk": Series.WAITING_BULK}
    lines = {label: [_extreme(history, series, group, max) for group in groups] for label, series in gauges.items()}
    return PlotLines(times, lines)


def update_lines(history: History, step_seconds: int) -> PlotLines:
    """Return the updates received and handled a second."""
    times, groups = _grouped(history, step_seconds)
    kinds = {"received a second": Series.RECEIVED, "handled a second": Series.HANDLED}
    lines = {
        label: [_per_second(history, series, group, step_seconds) for group in groups]
        for label, series in kinds.items()
    }
    return PlotLines(times, lines)


def lag_lines(history: History, step_seconds: int) -> PlotLines:
    """Return the mean time from an update's arrival to its handlers, in seconds."""
    times, groups = _grouped(history, step_seconds)
    return PlotLines(times, {"lag in seconds": [_mean_lag(history, group) for group in groups]})


PLOTS: Final[Mapping[str, Callable[[History, int], PlotLines]]] = {
    "rate": rate_lines,
    "waits": wait_lines,
    "waiting": queue_lines,
    "updates": update_lines,
    "lag": lag_lines,
}
"""By their names in URLs."""


def rows_of(plot: str, history: History, span: Span) -> PlotLines:
    """Return a plot's lines with fewer and longer steps, for a table."""
    return PLOTS[plot](history, span.step_seconds * ROWS_SHARE)


@dataclass(frozen=True, slots=True)
class KnownHistory:
    """A history that was read, and what was made of it since."""

    part: PartOfPage[History]
    read_at: float
    """Monotonic."""
    made: dict[str, PlotLines] = field(default_factory=dict)
    """Lines by plot, for those who look next."""


class Histories:
    """The histories that were read lately. Belongs to the event loop.

    Args:
        read: reads a bot's history.
    """

    def __init__(self, read: Callable[[str, Resolution, timedelta], Awaitable[History]]) -> None:
        self._read = read
        self._known: dict[tuple[str, Span], KnownHistory] = {}

    async def look(self, bot: str, span: Span) -> KnownHistory:
        """Return a bot's history, at most one point or :data:`FRESH_SECONDS` old."""
        known = self._known.get((bot, span))
        fresh = max(FRESH_SECONDS, span.step_seconds)
        if known is None or known.part.value is None or time.monotonic() - known.read_at > fresh:
            known = KnownHistory(await attempt(self._read(bot, span.resolution, span.length)), time.monotonic())
            self._known[bot, span] = known
        return known


def _grouped(history: History, step_seconds: int) -> tuple[list[int], list[list[int]]]:
    """Return when each step begins, and the places of its buckets; there are none while no process reported."""
    groups: dict[int, list[int]] = {}
    for place, at in enumerate(history.times):
        groups.setdefault(at // step_seconds * step_seconds, []).append(place)
    steps = range(min(groups), max(groups) + 1, step_seconds)[-MOST_POINTS:] if groups else range(0)
    return list(steps), [groups.get(step, []) for step in steps]


def _values(history: History, series: Series, group: list[int]) -> list[float]:
    values = history.values.get(series, ())
    found = [values[place] for place in group] if values else []
    return [value for value in found if value is not None]


def _per_second(history: History, series: Series, group: list[int], step_seconds: int) -> float | None:
    return round(sum(_values(history, series, group)) / step_seconds, 3) if group else None


def _extreme(
    history: History, series: Series, group: list[int], choose: Callable[[list[float]], float]
) -> float | None:
    found = _values(history, series, group)
    return choose(found) if found else None


def _mean_lag(history: History, group: list[int]) -> float | None:
    handled = sum(_values(history, Series.HANDLED, group))
    return round(sum(_values(history, Series.UPDATE_LAG, group)) / handled, 3) if handled else None
