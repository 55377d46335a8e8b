"""Hearing how jobs ended from the SQLite file: a look every few milliseconds, which costs more only when there is news.

``PRAGMA data_version`` tells in some two microseconds whether anybody has written at all. Then the index ``ended``
gives the rows since the last look, whatever the number of jobs behind them. Within a bot, jobs end in the order of
their ``since``: writers go one at a time, and the store's time never goes back.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from floodgate.broker.admission.contract import Record
from floodgate.broker.admission.result_feed import EndedJob, dead_record, sent_record
from floodgate.broker.admission.rows import State
from floodgate.broker.errors import StateUnavailableError
from floodgate.broker.state.sqlite.file import identity

# A caller hears of its result half of this later on average; Telegram takes some 50 ms for a call.
LOOK_SECONDS: Final = 0.003
# Rows taken at one look, which bounds its memory. The rest comes with the next.
PAGE: Final = 1000
_BUSY_SECONDS: Final = 5.0

_LAST: Final = "SELECT max(since) FROM jobs INDEXED BY ended WHERE bot = ? AND state >= 5"
_SINCE: Final = (
    "SELECT job_id, state, jobs.since, COALESCE(outcome, reason) FROM jobs INDEXED BY ended "
    "LEFT JOIN results ON results.number = jobs.result AND results.since = jobs.since "
    "WHERE bot = ? AND state >= 5 AND jobs.since >= ? ORDER BY jobs.since LIMIT ?"
)


class SqliteResultFeed:
    """``result_feed.ResultFeed`` on a SQLite file. Opened by ``skip``; belongs to one thread."""

    def __init__(self, path: Path, bots: Sequence[str]) -> None:
        self._path = path
        self._bots = tuple(bots)
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._version = -1
        self._look_at = 0.0  # monotonic
        self._heard: dict[str, tuple[int, frozenset[str]]] = {}  # bot: the last `since`, and the jobs that had it

    def skip(self) -> None:
        try:
            db = self._open()
            self._version = _version(db)
            for bot in self._bots:
                (last,) = db.execute(_LAST, (bot,)).fetchone()
                ids = frozenset(row[0] for row in db.execute(_SINCE, (bot, last, PAGE))) if last else frozenset()
                self._heard[bot] = (last or 0, ids)
        except sqlite3.Error as error:
            raise self._fault(error) from error

    def wait(self, seconds: float) -> Sequence[EndedJob]:
        deadline = time.monotonic() + seconds
        try:
            while True:
                # Under load, too: a look for every result would take turns with all that this process does.
                time.sleep(max(0.0, self._look_at - time.monotonic()))
                self._look_at = time.monotonic() + LOOK_SECONDS
                if found := self._look():
                    return found
                if self._look_at >= deadline:
                    return ()
        except (sqlite3.Error, OSError) as error:
            raise self._fault(error) from error

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    def _look(self) -> list[EndedJob]:
        db = self._connection
        if db is None or identity(self._path) != self._file:
            raise sqlite3.OperationalError("the file is another one than before")
        if (version := _version(db)) == self._version:
            return []
        found = [ended for bot in self._bots for ended in self._news(db, bot)]
        if len(found) < PAGE:
            self._version = version  # of before the look: what was written during it shows at the next
        return found

    def _news(self, db: sqlite3.Connection, bot: str) -> list[EndedJob]:
        last, heard = self._heard[bot]
        rows = [row for row in db.execute(_SINCE, (bot, last, PAGE + len(heard))) if row[0] not in heard]
        if rows:
            newest = rows[-1][2]
            same = frozenset(row[0] for row in rows if row[2] == newest)
            self._heard[bot] = (newest, same | heard if newest == last else same)
        return [EndedJob(bot, job_id, _record(state, outcome)) for job_id, state, _, outcome in rows]

    def _open(self) -> sqlite3.Connection:
        self.close()
        self._file = identity(self._path)
        uri = f"{self._path.absolute().as_uri()}?mode=ro"
        self._connection = sqlite3.connect(
            uri, uri=True, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        return self._connection

    def _fault(self, error: Exception) -> StateUnavailableError:
        self.close()
        return StateUnavailableError(
            f"The state file {self._path} cannot be read ({error}). A worker makes it; both must name the same "
            "FLOODGATE_STATE_URL."
        )


def _record(state: int, outcome: str | None) -> Record:
    return sent_record(outcome) if state == State.SENT else dead_record(outcome or "")


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA data_version").fetchone()[0])
