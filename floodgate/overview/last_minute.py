"""The last minute of a bot, from the history that its processes report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from floodgate.broker.state.activity import History, Series

MINUTE: Final = timedelta(minutes=1)
_WAITS: Final = "waits-"


@dataclass(frozen=True, slots=True)
class LastMinute:
    """What a bot's processes counted in the last minute. Empty while none of them reports."""

    sent: tuple[int, ...] = ()
    """Messages sent in each second, the latest one last."""
    waits: tuple[tuple[str, int], ...] = ()
    """Waits that admission imposed, by cause, the most frequent first: `rate`, `line`, `pause` and so on."""
    update_lag: timedelta | None = None
    """How long the updates whose handlers have begun had waited, on average; None if there were none."""
    answer_time: timedelta | None = None
    """How long a call to the Bot API took, on average; None if there was none."""


def last_minute(history: History) -> LastMinute:
    """Sum up a history of the last minute in seconds."""
    if not history.times:
        return LastMinute()
    sent = dict(zip(history.times, _values(history, Series.SENT), strict=True))
    end = history.times[-1]
    waits = {series.removeprefix(_WAITS): round(sum(_values(history, series))) for series in Series if _is_wait(series)}
    return LastMinute(
        sent=tuple(round(sent.get(second, 0)) for second in range(end - 59, end + 1)),
        waits=tuple(sorted(((cause, number) for cause, number in waits.items() if number), key=lambda each: -each[1])),
        update_lag=_mean(history, Series.UPDATE_LAG, Series.HANDLED),
        answer_time=_mean(history, Series.CALL_TIME, Series.CALLS),
    )


def _mean(history: History, seconds: Series, number: Series) -> timedelta | None:
    times = sum(_values(history, number))
    return timedelta(seconds=sum(_values(history, seconds)) / times) if times else None


def _is_wait(series: Series) -> bool:
    return series.startswith(_WAITS)


def _values(history: History, series: Series) -> Sequence[float]:
    return [value or 0 for value in history.values.get(series, [0] * len(history.times))]
