"""Handled updates as small rows in the state file, beside admission's tables.

Marks of one bot are swept by age a few at a time, within the transactions that add new ones: more go than come, so the
table is bounded by two days' updates.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

from broker.admission.handled import KEEP_SECONDS, Sight
from broker.admission.sqlite import LOCK_SECONDS, begin, connect, explain, locked
from broker.errors import StateUnavailableError

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
_SWEEP: Final = (
    "DELETE FROM updates WHERE (bot, update_id) IN "
    "(SELECT bot, update_id FROM updates WHERE at < ? ORDER BY at LIMIT ?)"
)

T = TypeVar("T")


class SqliteHandled:
    """``handled.HandledUpdates`` on a SQLite file. Thread-safe; opens nothing until it is used.

    One connection, used under ``_lock``, and given up after any fault, after a fork, and when another file is at the
    path: as admission's own (:mod:`broker.admission.sqlite`).
    """

    def __init__(self, path: Path, now: Callable[[], float] = time.time) -> None:
        self._path = path
        self._now = now
        self._forget_all()

    def _forget_all(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._marks = 0

    def meet(self, bot: str, update_id: int, queue: str, worker_id: str) -> Sight:
        def look(db: sqlite3.Connection) -> Sight:
            handled = db.execute(_SEEN, (bot, update_id)).fetchone() is not None
            (home,) = db.execute(_HOME, (queue,)).fetchone() or (None,)
            if home != worker_id:
                _write(db, _MOVE, (queue, worker_id))
            return Sight(handled, home if home != worker_id else None)

        return self._use(look)

    def mark(self, bot: str, update_id: int) -> None:
        def write(db: sqlite3.Connection) -> None:
            now = int(self._now())
            self._marks += 1
            if self._marks % SWEEP_EVERY == 0:
                _write(db, _SWEEP, (now - KEEP_SECONDS, SWEPT_AT_ONCE))
            _write(db, _MARK, (bot, update_id, now))

        self._use(write)

    def forget(self, bot: str, update_id: int) -> None:
        statement = "DELETE FROM updates WHERE bot = ? AND update_id = ?"
        self._use(lambda db: _write(db, statement, (bot, update_id)))

    def close(self) -> None:
        if os.getpid() == self._pid:
            with self._lock:
                self._drop()

    def _use(self, act: Callable[[sqlite3.Connection], T]) -> T:
        if os.getpid() != self._pid:
            self._forget_all()
        if not self._lock.acquire(timeout=LOCK_SECONDS):
            raise StateUnavailableError(locked(self._path))
        try:
            return act(self._open())
        except sqlite3.Error as error:
            self._drop()
            raise StateUnavailableError(explain(error, self._path)) from error
        finally:
            self._lock.release()

    def _open(self) -> sqlite3.Connection:
        present = _identity(self._path)
        if self._connection is None or present is None or present != self._file:
            self._drop()
            self._connection = connect(self._path)  # makes admission's tables, too, if it is first
            for statement in _TABLES:
                _write(self._connection, statement, ())
            self._file = _identity(self._path)
        return self._connection

    def _drop(self) -> None:
        connection, self._connection, self._file = self._connection, None, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()


def _write(db: sqlite3.Connection, statement: str, values: tuple[object, ...]) -> None:
    """One statement as one transaction, in turn with admission's writers."""
    begin(db, time.monotonic() + LOCK_SECONDS)
    db.execute(statement, values)
    db.execute("COMMIT")


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
