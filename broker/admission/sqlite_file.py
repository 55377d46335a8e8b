"""Small tables of others in the state file, beside admission's.

One connection, used under a lock by whichever thread calls, and given up after any fault, after a fork, and when
another file is at the path: as admission's own (:mod:`broker.admission.sqlite`).
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from broker.admission.sqlite import LOCK_SECONDS, begin, connect, explain, locked
from broker.errors import StateUnavailableError

T = TypeVar("T")


class StateFile:
    """Thread-safe and fork-safe; opens nothing until it is used.

    Parameters:
        tables: statements that make what is not there yet.
    """

    def __init__(self, path: Path, tables: Sequence[str]) -> None:
        self._path = path
        self._tables = tables
        self._forget()

    def _forget(self) -> None:
        """Start over without touching what a parent process may share with us."""
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None  # under _lock
        self._file: tuple[int, int] | None = None  # under _lock

    def use(self, act: Callable[[sqlite3.Connection], T]) -> T:
        """What ``act`` returns of the connection. It reads freely, and writes by :func:`write`.

        Raises:
            StateUnavailableError: the file cannot be read or written.
        """
        if os.getpid() != self._pid:
            self._forget()
        if not self._lock.acquire(timeout=LOCK_SECONDS):
            raise StateUnavailableError(locked(self._path))
        try:
            return act(self._open())
        except sqlite3.Error as error:
            self._drop()
            raise StateUnavailableError(explain(error, self._path)) from error
        finally:
            self._lock.release()

    def close(self) -> None:
        if os.getpid() == self._pid:
            with self._lock:
                self._drop()

    def _open(self) -> sqlite3.Connection:
        present = _identity(self._path)
        if self._connection is None or present is None or present != self._file:
            self._drop()
            self._connection = connect(self._path)  # makes admission's tables, too, if it is first
            for statement in self._tables:
                write(self._connection, statement)
            self._file = _identity(self._path)
        return self._connection

    def _drop(self) -> None:
        connection, self._connection, self._file = self._connection, None, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()


def write(db: sqlite3.Connection, statement: str, values: tuple[object, ...] = ()) -> None:
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
