"""The one place that opens the state file, drops its connection and explains SQLite's errors.

The first to open the file creates admission's tables; others keep small tables of their own beside them.

State: one connection per object, used under ``_lock`` by whichever thread calls; threads queue on the lock instead of
polling SQLite's. The connection is opened at first use. It is dropped after any error, after a fork (processes must not
share one), and when the path leads to another file than the open one (the file was deleted or replaced).

Failure handling: every SQLite error becomes a ``StateUnavailableError`` that names the file, the cause and the remedy.
"""

from __future__ import annotations

import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

from floodgate.broker.errors import StateSchemaError, StateUnavailableError
from floodgate.broker.state.sqlite.unit_of_work import SCHEMA, SCHEMA_VERSION

# A call gives up after waiting this long for the lock: some process holds it and does not release it.
LOCK_SECONDS: Final = 5.0
# A transaction takes some 60 µs, so polling this often wastes little; SQLite's own handler sleeps up to 100 ms.
_POLL_SECONDS: Final = 0.0002
_POLL_MAX_SECONDS: Final = 0.002

NO_FILE: Final = Path(":memory:")
"""An empty store that remembers nothing from one use to the next."""

# SQLite's locks and shared memory only work between processes of one machine.
_NETWORK_FILESYSTEMS: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "glusterfs", "lustre", "beegfs", "fuse.sshfs"}
)

T = TypeVar("T")


class StateFile:
    """Thread-safe and fork-safe; opens nothing until it is used.

    Args:
        tables: statements that create missing tables, beside admission's.
        read_only: read a file that another process creates; never create or change it.
    """

    def __init__(self, path: Path, tables: Sequence[str] = (), *, read_only: bool = False) -> None:
        self._path = path
        self._tables = tables
        self._read_only = read_only
        self._forget()

    def _forget(self) -> None:
        """Start over without touching the parent process's connection and lock."""
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None  # under _lock
        self._file: tuple[int, int] | None = None  # under _lock

    def use(self, act: Callable[[sqlite3.Connection], T], on_failure: Callable[[], None] = lambda: None) -> T:
        """Call ``act`` with the connection and return its result. It may read freely; it writes with :func:`write`.

        If it fails, ``on_failure`` is called while the connection is still locked.

        Raises:
            StateUnavailableError: the file cannot be read or written.
        """
        if os.getpid() != self._pid:
            self._forget()
        if not self._lock.acquire(timeout=LOCK_SECONDS):
            raise StateUnavailableError(_locked(self._path))
        try:
            return act(self._open())
        except sqlite3.Error as error:
            on_failure()
            self._drop()
            explain = _explain_read_only if self._read_only else _explain
            raise StateUnavailableError(explain(error, self._path)) from error
        except BaseException:
            on_failure()
            self._drop()  # closing rolls back
            raise
        finally:
            self._lock.release()

    def transact(
        self,
        act: Callable[[sqlite3.Connection], T],
        on_failure: Callable[[], None] = lambda: None,
        on_commit: Callable[[T], None] = lambda _: None,
    ) -> T:
        """:meth:`use` in one write transaction, which is rolled back if ``act`` raises.

        ``on_commit`` is called with the result while the connection is still locked.

        Raises:
            StateUnavailableError: as :meth:`use`.
        """
        deadline = time.monotonic() + LOCK_SECONDS

        def whole(db: sqlite3.Connection) -> T:
            _begin(db, deadline)
            result = act(db)
            db.execute("COMMIT")
            on_commit(result)
            return result

        return self.use(whole, on_failure)

    def close(self) -> None:
        if os.getpid() == self._pid:
            with self._lock:
                self._drop()

    def _open(self) -> sqlite3.Connection:
        present = _identity(self._path)
        if self._connection is None or present is None or present != self._file:
            self._drop()
            self._connection = _connect_read_only(self._path) if self._read_only else _connect(self._path)
            for statement in self._tables:
                write(self._connection, statement)
            # The identity from before, if there was a file: one replaced while we opened it is noticed at the next use.
            self._file = present or _identity(self._path)
        return self._connection

    def _drop(self) -> None:
        connection, self._connection, self._file = self._connection, None, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()


def _identity(path: Path) -> tuple[int, int] | None:
    """Device and inode of the file at a path; None if it is missing or inaccessible."""
    try:
        status = os.stat(path)  # noqa: PTH116 - a third of the time of Path.stat, on every call
    except OSError:
        return None
    return status.st_dev, status.st_ino


def write(db: sqlite3.Connection, statement: str, values: tuple[object, ...] = ()) -> None:
    """Execute one statement in its own transaction, waiting for other writers."""
    _begin(db, time.monotonic() + LOCK_SECONDS)
    db.execute(statement, values)
    db.execute("COMMIT")


def _begin(connection: sqlite3.Connection, deadline: float) -> None:
    """Begin a write transaction by the deadline. Pauses between tries are random, so that no process starves."""
    bound = _POLL_SECONDS
    while True:
        try:
            connection.execute("BEGIN IMMEDIATE")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        time.sleep(random.uniform(0, bound))
        bound = min(bound * 2, _POLL_MAX_SECONDS)


def _connect(path: Path) -> sqlite3.Connection:
    """Open the file and install the schema. A new file is readable by its owner only.

    Only SQLite opens a file that exists: on POSIX, closing any descriptor of it drops all of this process's locks on
    it, and another process could then believe that it is the last one and delete the log in use.
    """
    if path != NO_FILE:
        _create(path)
    connection = sqlite3.connect(path, timeout=LOCK_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        enter_wal_mode(connection)
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA cache_size = -8000")
        connection.execute("PRAGMA journal_size_limit = 67108864")
        _install_schema(connection, path)
        connection.execute("PRAGMA busy_timeout = 0")  # from here on _begin waits
    except BaseException:
        connection.close()
        raise
    return connection


def enter_wal_mode(connection: sqlite3.Connection) -> None:
    """Switch a file to write-ahead logging; wait up to :data:`LOCK_SECONDS` for others who do the same to a new file.

    SQLite reports the file as locked at once, whatever the connection's timeout, as two who wait would deadlock.
    """
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        time.sleep(random.uniform(_POLL_SECONDS, _POLL_MAX_SECONDS))


def create_file(path: Path) -> None:
    """Create the file and its directory, for the owner only; leave a file that exists alone."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


def _create(path: Path) -> None:
    _refuse_network_filesystem(path)
    try:
        create_file(path)
    except OSError as error:
        raise StateUnavailableError(
            f"The state file {path} cannot be opened: {error.strerror}. Make it and its directory writable, or set "
            "FLOODGATE_STATE_URL to another place."
        ) from error


def _connect_read_only(path: Path) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode=ro"
    return sqlite3.connect(uri, uri=True, timeout=LOCK_SECONDS, isolation_level=None, check_same_thread=False)


def _install_schema(connection: sqlite3.Connection, path: Path) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == SCHEMA_VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    (version,) = connection.execute("PRAGMA user_version").fetchone()  # another process may have been first
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if version == 0 and not tables:
        for statement in SCHEMA.split(";\n"):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    elif version != SCHEMA_VERSION:
        raise StateSchemaError(
            f"The state file {path} has schema {version} and this Floodgate knows {SCHEMA_VERSION}. Stop all "
            "workers and move the file away. No message is lost: RabbitMQ has them."
        )
    connection.execute("COMMIT")


def _refuse_network_filesystem(path: Path) -> None:
    kind = filesystem_of(path)
    if kind in _NETWORK_FILESYSTEMS:
        raise StateUnavailableError(
            f"The state file {path} is on a network file system ({kind}), and SQLite's locks do not hold between "
            "machines. Use a local file for one machine, or a redis:// FLOODGATE_STATE_URL for many."
        )


def filesystem_of(path: Path, mounts: Path = Path("/proc/self/mounts")) -> str:
    """Type of the file system that holds ``path``; empty if unknown."""
    try:
        entries = [line.split(" ")[1:3] for line in mounts.read_text().splitlines()]
    except OSError:
        return ""
    where = path.absolute()
    kind = ""
    longest = -1
    for point, name in entries:
        point = point.replace("\\040", " ")
        if len(point) >= longest and where.is_relative_to(point):
            longest, kind = len(point), name
    return kind


def _locked(path: Path) -> str:
    return (
        f"The state file {path} has been locked for {LOCK_SECONDS:.0f} s. Look for a stopped worker or another program "
        "that has it open (fuser shows which)."
    )


def _explain(error: sqlite3.Error, path: Path) -> str:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    match code:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return _locked(path)
        case sqlite3.SQLITE_FULL:
            return f"The state file {path} cannot grow: the disk is full. Free some space; sends go on by themselves."
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            return f"The state file {path} cannot be written. Make it and its directory writable by the worker's user."
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return (
                f"The state file {path} is damaged or no SQLite file. Stop all workers and move it away: no "
                "message is lost, they are in RabbitMQ."
            )
        case _:
            return f"The state file {path} failed: {error}. Check the disk; sends go on when it answers again."


def _explain_read_only(error: sqlite3.Error, path: Path) -> str:
    return (
        f"The state file {path} cannot be read ({error}). A worker creates it; both must have the same "
        "FLOODGATE_STATE_URL."
    )
