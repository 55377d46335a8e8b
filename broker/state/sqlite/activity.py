"""Reports of processes and the history in the state file.

A report is one short transaction. It drops the old buckets of one bot, each in turn, so a bot that is no longer
configured loses its history too.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final

from floodgate.broker.admission.clock import Clock
from floodgate.broker.admission.policy import SECOND, Policy
from floodgate.broker.messages.job import Priority
from floodgate.broker.state.activity import (
    LIVE_SECONDS,
    Counts,
    History,
    ProcessReport,
    Resolution,
    Series,
)
from floodgate.broker.state.buckets import history_of, is_sampled, merged
from floodgate.broker.state.processes import active, report_of, text_of
from floodgate.broker.state.sqlite.file import StateFile
from floodgate.broker.state.sqlite.machine_clock import MachineClock
from floodgate.broker.state.sqlite.status import sending, waiting, working_rate
from floodgate.broker.state.sqlite.unit_of_work import SqliteUnitOfWork

_TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS processes (id TEXT PRIMARY KEY, heard INTEGER, started INTEGER, report TEXT) "
    "WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS history "
    "(bot TEXT, seconds INTEGER, at INTEGER, counts TEXT, PRIMARY KEY (bot, seconds, at)) WITHOUT ROWID",
)
_HEAR: Final = "INSERT OR REPLACE INTO processes VALUES (?, ?, ?, ?)"
_GONE: Final = "DELETE FROM processes WHERE id = ? OR heard <= ?"
_LIVE: Final = "SELECT report, started FROM processes WHERE heard > ?"
_BUCKET: Final = "SELECT counts FROM history WHERE bot = ? AND seconds = ? AND at = ?"
_SAVE: Final = "INSERT OR REPLACE INTO history VALUES (?, ?, ?, ?)"
_BUCKETS: Final = "SELECT at, counts FROM history WHERE bot = ? AND seconds = ? AND at > ? AND at <= ? ORDER BY at"
_NEXT_BOT: Final = "SELECT min(bot) FROM history WHERE bot > ?"
_DROP: Final = "DELETE FROM history WHERE bot = ? AND seconds = ? AND at <= ?"


class SqliteActivity:
    """``activity.Activity`` on a SQLite file. Thread-safe; opens the file at first use."""

    def __init__(self, path: Path, policy: Policy, clock: Clock | None = None) -> None:
        self._file = StateFile(path, _TABLES)
        self._policy = policy
        self._clock = clock or MachineClock()
        self._swept = ""  # the bot whose old buckets were dropped last; used within transactions

    def report(self, process: ProcessReport, increments: Mapping[str, Counts], sampled: Collection[str] = ()) -> None:
        def act(db: sqlite3.Connection) -> None:
            now = self._now_us()
            db.execute(_GONE, ("", now - LIVE_SECONDS * SECOND))
            started = now - process.uptime // timedelta(microseconds=1)
            db.execute(_HEAR, (process.id, now, started, text_of(process)))
            self._count(db, increments, sampled, now // SECOND)

        self._file.transact(act)

    def leave(self, process: ProcessReport, increments: Mapping[str, Counts]) -> None:
        def act(db: sqlite3.Connection) -> None:
            now = self._now_us()
            db.execute(_GONE, (process.id, now - LIVE_SECONDS * SECOND))
            self._count(db, increments, (), now // SECOND)

        self._file.transact(act)

    def processes(self) -> Sequence[ProcessReport]:
        now = self._now_us()
        found = self._file.use(lambda db: db.execute(_LIVE, (now - LIVE_SECONDS * SECOND,)).fetchall())
        return active(report_of(text, timedelta(microseconds=now - started)) for text, started in found)

    def history(self, bot: str, resolution: Resolution, last: timedelta | None = None) -> History:
        now = self._now_us() // SECOND
        after = now - int(min(last or resolution.span, resolution.span).total_seconds())
        span = (bot, resolution.seconds, after, now)
        return history_of(self._file.use(lambda db: db.execute(_BUCKETS, span).fetchall()))

    def close(self) -> None:
        self._file.close()

    def _now_us(self) -> int:
        return self._clock.read().unix_us

    def _count(
        self, db: sqlite3.Connection, increments: Mapping[str, Counts], sampled: Collection[str], now: int
    ) -> None:
        for bot in {*increments, *sampled}:
            counts = dict(increments.get(bot, {}))
            if bot in sampled and not is_sampled(_bucket(db, bot, Resolution.SECOND, now)):
                counts |= self._sample(db, bot)
            if counts:
                for resolution in Resolution:
                    _add(db, bot, resolution, now, counts)
        self._drop_old(db, now)

    def _sample(self, db: sqlite3.Connection, bot: str) -> dict[Series, float]:
        work = SqliteUnitOfWork(db, bot, self._policy, self._clock)  # only read, so not finished
        jobs = waiting(work)
        sample: dict[Series, float] = {
            Series.WAITING_INTERACTIVE: jobs[Priority.INTERACTIVE],
            Series.WAITING_BULK: jobs[Priority.BULK],
            Series.IN_FLIGHT: sending(work),
        }
        rate = working_rate(work)
        return sample if math.isinf(rate) else sample | {Series.LIMIT: rate}

    def _drop_old(self, db: sqlite3.Connection, now: int) -> None:
        (following,) = db.execute(_NEXT_BOT, (self._swept,)).fetchone()
        self._swept = following or ""
        for resolution in Resolution:
            db.execute(_DROP, (self._swept, resolution.seconds, now - int(resolution.span.total_seconds())))


def _bucket(db: sqlite3.Connection, bot: str, resolution: Resolution, now: int) -> str:
    found = db.execute(_BUCKET, (bot, resolution.seconds, now - now % resolution.seconds)).fetchone()
    return "" if found is None else str(found[0])


def _add(db: sqlite3.Connection, bot: str, resolution: Resolution, now: int, counts: Counts) -> None:
    text = merged(_bucket(db, bot, resolution, now), counts)
    db.execute(_SAVE, (bot, resolution.seconds, now - now % resolution.seconds, text))
