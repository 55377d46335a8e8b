"""Hearing how jobs ended from the SQLite file: a look every few milliseconds, which costs more only when there is news.

``PRAGMA data_version`` tells in some two microseconds whether anybody has written at all. Then the rows of ``results``
behind the last known are read, which are numbered in the order in which jobs ended: one query, whatever the number of
bots and of jobs. When all rows have been swept, numbers begin anew; the last known row is missing then.
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

# A caller hears of its result half of this later on average; Telegram takes some 50 ms for a call.
LOOK_SECONDS: Final = 0.003
# Rows taken at one look, which bounds its memory. The rest comes with the next.
PAGE: Final = 1000

_LAST: Final = "SELECT number, since FROM results ORDER BY number DESC LIMIT 1"
_IS_THERE: Final = "SELECT 1 FROM results WHERE number = ? AND since = ?"
_BEHIND: Final = (
    "SELECT results.number, results.since, jobs.bot, jobs.job_id, jobs.state, results.outcome FROM results "
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
            # Under load, too: a look for every result would take turns with all that this process does.
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
            self._version = version  # of before the look: what was written during it shows at the next
        # Rows of jobs that were reopened meanwhile have no job any more.
        return [
            EndedJob(bot, job_id, _record(state, text)) for _, _, bot, job_id, state, text in rows if bot in self._bots
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
