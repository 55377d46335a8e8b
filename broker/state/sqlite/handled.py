"""Handled updates as small rows in the state file.

Old marks are deleted in small batches while new ones are written. More are deleted than added, so the table holds about
two days' updates.
"""

from __future__ import annotations

import itertools
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from floodgate.broker.state.handled import KEEP_SECONDS, UpdateStatus
from floodgate.broker.state.sqlite.file import StateFile, write

SWEEP_EVERY: Final = 32
SWEPT_AT_ONCE: Final = 100

_TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS updates (bot TEXT, update_id INTEGER, at INTEGER, PRIMARY KEY (bot, update_id)) "
    "WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS updates_by_age ON updates (at)",
    "CREATE TABLE IF NOT EXISTS update_homes (queue TEXT PRIMARY KEY, worker TEXT) WITHOUT ROWID",
)
_SEEN: Final = "SELECT 1 FROM updates WHERE bot = ? AND update_id = ?"
_HOME: Final = "SELECT worker FROM update_homes WHERE queue = ?"
_MOVE: Final = "INSERT OR REPLACE INTO update_homes VALUES (?, ?)"
_MARK: Final = "INSERT OR IGNORE INTO updates VALUES (?, ?, ?)"
_FORGET: Final = "DELETE FROM updates WHERE bot = ? AND update_id = ?"
_SWEEP: Final = (
    "DELETE FROM updates WHERE (bot, update_id) IN "
    "(SELECT bot, update_id FROM updates WHERE at < ? ORDER BY at LIMIT ?)"
)


class SqliteHandled:
    """``handled.HandledUpdates`` on a SQLite file. Thread-safe; opens the file on first use."""

    def __init__(self, path: Path, now: Callable[[], float] = time.time) -> None:
        self._file = StateFile(path, _TABLES)
        self._now = now
        self._marks = itertools.count(1)

    def begin(self, bot: str, update_id: int, queue: str, worker_id: str) -> UpdateStatus:
        def look(db: sqlite3.Connection) -> UpdateStatus:
            handled = db.execute(_SEEN, (bot, update_id)).fetchone() is not None
            (home,) = db.execute(_HOME, (queue,)).fetchone() or (None,)
            if home != worker_id:
                write(db, _MOVE, (queue, worker_id))
            return UpdateStatus(handled, home if home != worker_id else None)

        return self._file.use(look)

    def mark(self, bot: str, update_id: int) -> None:
        def note(db: sqlite3.Connection) -> None:
            now = int(self._now())
            if next(self._marks) % SWEEP_EVERY == 0:
                write(db, _SWEEP, (now - KEEP_SECONDS, SWEPT_AT_ONCE))
            write(db, _MARK, (bot, update_id, now))

        self._file.use(note)

    def forget(self, bot: str, update_id: int) -> None:
        self._file.use(lambda db: write(db, _FORGET, (bot, update_id)))

    def close(self) -> None:
        self._file.close()
