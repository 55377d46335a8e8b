"""The result feed on the SQLite file: a poll every few milliseconds, which is cheap unless there are new results.

``PRAGMA data_version`` tells in some two microseconds whether anything has been written. If so, one query, whatever the
number of bots and jobs, reads the rows of ``results`` after the last known one; rows are numbered in the order in which
jobs ended. When all rows have been swept, numbering restarts; this shows by the last known row being gone.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from floodgate.broker.admission.contract import Record
from floodgate.broker.admission.result_feed import EndedJob, dead_record, sent_record
from floodgate.broker.admission.rows import State
from floodgate.broker.state.sqlite.file import StateFile

# On average this delays a result by half its length; a call to Telegram takes some 50 ms.
LOOK_SECONDS: Final = 0.003
# Rows read per poll, which bounds memory. The rest is read by the next.
PAGE: Final = 1000

_LAST: Final = "SELECT number, since FROM results ORDER BY number DESC LIMIT 1"
_IS_THERE: Final = "SELECT 1 FROM results WHERE number = ? AND since = ?"
_BEHIND: Final = (
    "SELECT results.number, results.since, jobs.bot, jobs.job_id, jobs.state, results.outcome, jobs.chain FROM results "
    "LEFT JOIN jobs ON jobs.number = results.job AND jobs.result = results.number AND jobs.since = results.since "
    "WHERE results.number > ? ORDER BY results.number LIMIT ?"
)
_NONE: Final = (0, 0)


class SqliteResultFeed:
    """``result_feed.ResultFeed`` on a SQLite file. Opened by ``skip``; belongs to one thread, but for ``close``."""

    def __init__(self, path: Path, bots: Sequence[str]) -> None:
        self._file = StateFile(path, read_only=True)
        self._bots = frozenset(bots)
        self._connection: sqlite3.Connection | None = None  # which the version and the last row are of
        self._version = -1
        self._look_at = 0.0  # monotonic
        self._last: tuple[int, int] = _NONE  # of the last row known: its number and time

    def skip(self) -> None:
        self._file.use(self._skip)

    def wait(self, seconds: float) -> Sequence[EndedJob]:
        deadline = time.monotonic() + seconds
        while True:
            # Under load, too: polling for every single result would slow down the rest of this process.
            time.sleep(max(0.0, self._look_at - time.monotonic()))
            self._look_at = time.monotonic() + LOOK_SECONDS
            if found := self._file.use(self._look):
                return found
            if self._look_at >= deadline:
                return ()

    def close(self) -> None:
        self._file.close()

    def _skip(self, db: sqlite3.Connection) -> None:
        self._connection = db
        self._version = _version(db)
        self._last = db.execute(_LAST).fetchone() or _NONE

    def _look(self, db: sqlite3.Connection) -> list[EndedJob]:
        if db is not self._connection:
            raise sqlite3.OperationalError("it was replaced, or the connection to it was lost")
        if (version := _version(db)) == self._version:
            return []
        rows = self._behind(db)
        if rows:
            self._last = rows[-1][:2]
        if len(rows) < PAGE:
            self._version = version  # from before the query: the next poll sees what was written during it
        # Rows of jobs that have been reopened no longer have a job.
        return [
            EndedJob(bot, job_id, _record(state, text), chain)
            for _, _, bot, job_id, state, text, chain in rows
            if bot in self._bots
        ]

    def _behind(self, db: sqlite3.Connection) -> list[tuple[Any, ...]]:
        db.execute("BEGIN")  # one state of the file for both questions
        try:
            last = self._last if db.execute(_IS_THERE, self._last).fetchone() else _NONE
            return db.execute(_BEHIND, (last[0], PAGE)).fetchall()
        finally:
            db.execute("COMMIT")


def _record(state: int, outcome: str | None) -> Record:
    return sent_record(outcome) if state == State.SENT else dead_record(outcome or "")


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA data_version").fetchone()[0])
