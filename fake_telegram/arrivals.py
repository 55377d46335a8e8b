"""The record of every call and its outcome, in the order of arrival.

Bounded: beyond ``capacity`` calls the oldest tenth is dropped, and sequence numbers continue. A record holds the
parameters as the bytes received (about 0.4 kB per record in all) and decodes them on demand. Only the event loop writes
records; a finished record does not change, so another thread may read a snapshot of the list.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from floodgate.fake_telegram.calls import CallSource

CAPACITY: Final = 1_000_000


@dataclass(slots=True)
class Arrival:
    """One call. Times are seconds: ``at`` monotonic since the server's start, ``wall`` since the epoch."""

    seq: int
    bot_id: int
    method: str
    chat_id: int | None
    source: CallSource
    at: float
    wall: float
    cost: int = 1
    charged_chat: bool = False
    paid: bool = False
    typing: bool = False
    in_flight: int = 1
    """Calls of this bot for this chat that were unanswered at arrival, this one included."""
    verdict: str = ""
    """`ok`, `free`, `off`, or the limit that refused it. Empty if a fault came before the limits were checked."""
    acted: bool = False
    """Whether the call took effect, whatever answer the caller got."""
    message_id: int | None = None
    code: int | None = None
    """The HTTP status of the answer; None while unanswered, and always if the connection was dropped."""

    def as_json(self) -> dict[str, Any]:
        """Return the record as the control API returns it."""
        return {
            "seq": self.seq,
            "bot_id": self.bot_id,
            "method": self.method,
            "chat_id": self.chat_id,
            "params": self.source.params(),
            "at": self.at,
            "wall": self.wall,
            "cost": self.cost,
            "in_flight": self.in_flight,
            "verdict": self.verdict,
            "acted": self.acted,
            "message_id": self.message_id,
            "code": self.code,
        }


@dataclass(frozen=True, slots=True)
class Stats:
    """Counters that are cheap to read, for a live view."""

    arrived: int
    acted: int
    unanswered: int
    refused_by_limits: int
    acted_last_second: int
    most_in_flight_in_a_chat: int
    by_code: dict[int, int]


class Arrivals:
    """The bounded list of records, and counters."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self.clear()

    def clear(self) -> None:
        """Forget all records. Sequence numbers start again at 1."""
        self._records: list[Arrival] = []
        self._next_seq = 1
        self._by_code: Counter[int] = Counter()
        self._acted = 0
        self._unanswered = 0
        self._most_in_flight = 0
        self._in_flight: Counter[tuple[int, int]] = Counter()

    def open(
        self, bot_id: int, method: str, chat_id: int | None, source: CallSource, at: float, wall: float
    ) -> Arrival:
        """Record a call that has just arrived."""
        arrival = Arrival(self._next_seq, bot_id, method, chat_id, source, at, wall)
        self._next_seq += 1
        self._unanswered += 1
        if chat_id is not None:
            self._in_flight[(bot_id, chat_id)] += 1
            arrival.in_flight = self._in_flight[(bot_id, chat_id)]
            self._most_in_flight = max(self._most_in_flight, arrival.in_flight)
        self._records.append(arrival)
        if len(self._records) > self._capacity:
            del self._records[: max(1, self._capacity // 10)]
        return arrival

    def acted(self, arrival: Arrival, message_id: int | None) -> None:
        """Record that the call took effect."""
        arrival.acted, arrival.message_id = True, message_id
        self._acted += 1

    def close(self, arrival: Arrival, code: int | None) -> None:
        """Record that the call was answered with ``code``, or that its connection was lost (None)."""
        arrival.code = code
        self._unanswered -= 1
        if code is not None:
            self._by_code[code] += 1
        if arrival.chat_id is not None:
            self._land(arrival.bot_id, arrival.chat_id)

    def _land(self, bot_id: int, chat_id: int) -> None:
        key = (bot_id, chat_id)
        self._in_flight[key] -= 1
        if self._in_flight[key] <= 0:
            del self._in_flight[key]

    def snapshot(self) -> Sequence[Arrival]:
        """Return all stored records, oldest first."""
        return list(self._records)

    def page(self, after: int, limit: int) -> Sequence[Arrival]:
        """Return at most ``limit`` records with a sequence number above ``after``."""
        start = max(0, after + 1 - self._records[0].seq) if self._records else 0
        return self._records[start : start + limit]

    def stats(self, now: float) -> Stats:
        """Return the counters. ``now`` is on the clock of ``at``."""
        return Stats(
            arrived=self._next_seq - 1,
            acted=self._acted,
            unanswered=self._unanswered,
            refused_by_limits=self._by_code[429],
            acted_last_second=self._acted_since(now - 1.0),
            most_in_flight_in_a_chat=self._most_in_flight,
            by_code=dict(self._by_code),
        )

    def _acted_since(self, start: float) -> int:
        count = 0
        for record in reversed(self._records):
            if record.at <= start:
                break
            count += record.acted and record.verdict in ("ok", "off") and not record.typing
        return count
