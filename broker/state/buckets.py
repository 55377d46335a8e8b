"""Buckets of the history as the stores keep them: a text with one number for each series, or nothing for 0."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from floodgate.broker.state.activity import GAUGES, Counts, History, Series

SERIES: Final = tuple(Series)
# How a number joins those of its bucket: they are added; of samples the largest or the smallest counts.
FOLDS: Final[Mapping[Series, str]] = {
    series: ("min" if series is Series.LIMIT else "max") if series in GAUGES else "sum" for series in SERIES
}
_NOTHING: Final[list[float | None]] = [None if series in GAUGES else 0.0 for series in SERIES]


def encoded(counts: Counts) -> str:
    """Return the text of a bucket. A sample is written even if it is 0."""
    texts = (_text(series, counts.get(series)) for series in SERIES)
    return ",".join(texts).rstrip(",")


def merged(old: str, counts: Counts) -> str:
    """Return the text of a bucket to which ``counts`` have been added."""
    known = {series: value for series, value in zip(SERIES, decoded(old), strict=True) if value is not None}
    for series, value in counts.items():
        known[series] = _fold(series, known.get(series), value)
    return encoded(known)


def decoded(text: str) -> list[float | None]:
    """Return the numbers of a bucket in the order of the series. Those of a later version are left out."""
    values = _NOTHING.copy()
    for place, field in enumerate(text.split(",")[: len(SERIES)]):
        if field:
            values[place] = float(field)
    return values


def history_of(buckets: Iterable[tuple[int, str]]) -> History:
    """Return the history of buckets, given by the times at which they begin."""
    times: list[int] = []
    rows: list[list[float | None]] = []
    for at, text in buckets:
        times.append(at)
        rows.append(decoded(text))
    columns: Sequence[Sequence[float | None]] = list(zip(*rows, strict=True)) if rows else [()] * len(SERIES)
    return History(times, dict(zip(SERIES, columns, strict=True)))


def is_sampled(text: str) -> bool:
    """Whether a bucket holds a sample of the gauges."""
    return decoded(text)[SERIES.index(Series.IN_FLIGHT)] is not None


def _text(series: Series, value: float | None) -> str:
    return "" if value is None or (value == 0 and series not in GAUGES) else f"{value:.10g}"


def _fold(series: Series, old: float | None, new: float) -> float:
    if old is None:
        return new
    match FOLDS[series]:
        case "min":
            return min(old, new)
        case "max":
            return max(old, new)
        case _:
            return old + new
