"""The fake Bot API as a process that can be killed: calls that acted are in a journal on disk before they are answered.

A journal line is JSON. ``acted`` lines contain arrivals, ``closed`` lines contain answers (``code`` null: no answer).
Times are the machine's monotonic clock, so that they compare with those of the workers' notebooks and across restarts
of the fake. A restart empties the fake's own windows, which is why limits are judged from the journal.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from floodgate.fake_telegram.arrivals import Arrival, Arrivals
from floodgate.fake_telegram.limits import FloodLimits
from floodgate.fake_telegram.server import FakeTelegram
from tests.chaos.hooks import append_to


@dataclass(slots=True)
class Arrived:
    """One call of the Bot API."""

    run: int
    seq: int
    at: float
    chat: int | None = None
    text: str = ""
    cost: int = 1
    charged_chat: bool = False
    acted: bool = False
    verdict: str = ""
    code: int | None = None
    closed: bool = False


class JournalledArrivals(Arrivals):
    """The record, with a copy on disk."""

    def __init__(self, journal: Path) -> None:
        super().__init__()
        self._note = append_to(journal)
        self._run = os.getpid()
        self._at: dict[int, float] = {}

    def open(self, *args: Any) -> Arrival:
        arrival = super().open(*args)
        self._at[arrival.seq] = time.monotonic()
        return arrival

    def acted(self, arrival: Arrival, message_id: int | None) -> None:
        super().acted(arrival, message_id)
        self._write(arrival, event="acted")

    def close(self, arrival: Arrival, code: int | None) -> None:
        super().close(arrival, code)
        self._write(arrival, event="closed", code=code)
        self._at.pop(arrival.seq, None)

    def _write(self, arrival: Arrival, **what: Any) -> None:
        known = {
            "run": self._run,
            "seq": arrival.seq,
            "at": self._at.get(arrival.seq, 0.0),
            "chat": arrival.chat_id,
            "cost": arrival.cost,
            "charged_chat": arrival.charged_chat,
            "verdict": arrival.verdict,
            "text": str(arrival.source.params().get("text", "")),
        }
        self._note(json.dumps({**known, **what}))


def serve(port: int, journal: Path, limits: FloodLimits, seed: int) -> None:
    """Serves until killed."""
    asyncio.run(_serve(port, journal, limits, seed))


async def _serve(port: int, journal: Path, limits: FloodLimits, seed: int) -> None:
    fake = FakeTelegram(port=port, limits=limits, seed=seed)
    fake.exchange.arrivals = JournalledArrivals(journal)
    await fake.start()
    await asyncio.Event().wait()


def read_journal(journal: Path) -> list[Arrived]:
    """Arrivals in order."""
    found: dict[tuple[int, int], Arrived] = {}
    for entry in _entries(journal):
        key = (entry["run"], entry["seq"])
        arrived = found.setdefault(key, Arrived(*key, entry["at"]))
        arrived.chat, arrived.cost, arrived.charged_chat = entry["chat"], entry["cost"], entry["charged_chat"]
        arrived.verdict, arrived.text = entry["verdict"] or arrived.verdict, entry["text"]
        if entry["event"] == "acted":
            arrived.acted = True
        else:
            arrived.closed, arrived.code = True, entry["code"]
    return sorted(found.values(), key=lambda arrived: arrived.at)


def _entries(journal: Path) -> Iterator[dict[str, Any]]:
    if journal.exists():
        yield from map(json.loads, journal.read_text().splitlines())
