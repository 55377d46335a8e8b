"""Summarises a run: answers by code, the fullest window of each limit, and messages that were sent twice.

Pure functions over records, which a test can check and a thread can run. A window is (t-length, t] and counts the cost
of every call in it that took effect under a limit.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from floodgate.fake_telegram.arrivals import Arrival
from floodgate.fake_telegram.errors import ApiError

LISTED_DUPLICATES: Final = 100
_METERED: Final = frozenset({"ok", "off"})


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A text that took effect ``times`` times in one chat by one method."""

    bot_id: int
    chat_id: int | None
    method: str
    text: str
    times: int


@dataclass(frozen=True, slots=True)
class Summary:
    """The figures of a run. Maxima are costs in the fullest window of their kind."""

    arrived: int
    acted: int
    by_code: dict[int, int]
    refused_by: dict[str, int]
    bot_in_1s: int
    paid_in_1s: int
    chat_in_1s: int
    group_in_60s: int
    typing_in_5s: int
    typing_in_30s: int
    in_flight_in_a_chat: int
    chats: int
    duplicated: int
    duplicates: tuple[Duplicate, ...]
    """The first hundred duplicates."""


def summarise(records: Sequence[Arrival]) -> Summary:
    """Summarise records, which must be in order of arrival."""
    acted = [r for r in records if r.acted and r.verdict in _METERED]
    metered, typing = [r for r in acted if not r.typing], [r for r in acted if r.typing]
    in_chats = [r for r in metered if r.charged_chat]
    repeated = _duplicates(metered)
    return Summary(
        arrived=len(records),
        acted=sum(r.acted for r in records),
        by_code=dict(Counter(r.code for r in records if r.code is not None)),
        refused_by=dict(Counter(r.verdict for r in records if r.code == 429 and r.verdict not in _METERED)),
        bot_in_1s=fullest(((r.bot_id, r.at, r.cost) for r in metered if not r.paid), 1.0),
        paid_in_1s=fullest(((r.bot_id, r.at, r.cost) for r in metered if r.paid), 1.0),
        chat_in_1s=fullest((((r.bot_id, r.chat_id), r.at, r.cost) for r in in_chats), 1.0),
        group_in_60s=fullest((((r.bot_id, r.chat_id), r.at, r.cost) for r in in_chats if (r.chat_id or 0) < 0), 60.0),
        typing_in_5s=fullest((((r.bot_id, r.chat_id), r.at, 1) for r in typing), 5.0),
        typing_in_30s=fullest((((r.bot_id, r.chat_id), r.at, 1) for r in typing), 30.0),
        in_flight_in_a_chat=max((r.in_flight for r in records if r.chat_id is not None), default=0),
        chats=len({(r.bot_id, r.chat_id) for r in in_chats}),
        duplicated=len(repeated),
        duplicates=tuple(repeated[:LISTED_DUPLICATES]),
    )


def fullest(charges: Iterable[tuple[Hashable, float, int]], window_seconds: float) -> int:
    """Return the highest cost of any key within any window. ``charges`` are (key, at, cost) in order of time."""
    windows: dict[Hashable, deque[tuple[float, int]]] = {}
    used: Counter[Hashable] = Counter()
    most = 0
    for key, at, cost in charges:
        window = windows.setdefault(key, deque())
        while window and window[0][0] <= at - window_seconds:
            used[key] -= window.popleft()[1]
        window.append((at, cost))
        used[key] += cost
        most = max(most, used[key])
    return most


def _duplicates(records: Sequence[Arrival]) -> list[Duplicate]:
    counts: Counter[tuple[int, int | None, str, str]] = Counter()
    for record in records:
        text = _text_of(record)
        if text:
            counts[(record.bot_id, record.chat_id, record.method, text)] += 1
    return [Duplicate(*key, times) for key, times in counts.items() if times > 1]


def _text_of(record: Arrival) -> str:
    try:
        params: dict[str, Any] = record.source.params()
    except ApiError:
        return ""
    return str(params.get("text") or params.get("caption") or "")
