"""Admission in one SQLite file, shared by any number of processes of one machine.

Overview: each call is one ``BEGIN IMMEDIATE`` transaction: it loads a few rows by key, lets ``decisions`` change
them, and saves them. SQLite lets one writer in at a time, which is the point: the budget is one.

State: one connection per process, used under ``_lock`` by whichever thread calls; threads queue on the lock instead
of polling SQLite's. The connection is opened at first use and given up after any fault, after a fork (it must not be
shared), and when the file at the path is another one than that which is open (somebody deleted it).

Durability: WAL with ``synchronous=NORMAL``. A crash of any process loses nothing. A crash of the machine may lose the
last moments, and with them the knowledge that a job was sent: it is then sent again, as if the network had failed.

Failure handling: whatever SQLite raises becomes one ``StateUnavailableError`` that names the file, the cause and the
remedy. Nothing is sent until a later call succeeds.
"""

from __future__ import annotations

import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Final, TypeVar

from broker.admission import decisions
from broker.admission.clock import Clock, MachineClock
from broker.admission.contract import Ask, Decision, Record, Scope, Settlement, Snapshot, UnreachableChat
from broker.admission.policy import Policy
from broker.admission.sqlite_books import SCHEMA, SCHEMA_VERSION, SqliteBooks
from broker.admission.sqlite_status import snapshot, unreachable
from broker.admission.sqlite_sweep import Sweep
from broker.errors import StateSchemaError, StateUnavailableError

# A call that waited this long for its turn gives up: some process holds the file and does not let go.
LOCK_SECONDS: Final = 5.0
# A transaction takes some 60 µs, so a look that often wastes little; SQLite's own handler sleeps up to 100 ms.
_POLL_SECONDS: Final = 0.0002
_POLL_MAX_SECONDS: Final = 0.002
# Every so many settlements a few old rows are swept.
SWEEP_EVERY: Final = 64

# SQLite's locks and shared memory work among the processes of one machine only.
_NETWORK_FILESYSTEMS: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "glusterfs", "lustre", "beegfs", "fuse.sshfs"}
)

T = TypeVar("T")


class SqliteAdmission:
    """``contract.Admission`` on a SQLite file. Thread-safe and fork-safe; opens nothing until it is used."""

    def __init__(self, path: Path, policy: Policy, clock: Clock | None = None) -> None:
        self._path = path
        self._policy = policy
        self._clock = clock or MachineClock()
        self._forget()

    def _forget(self) -> None:
        """Start over without touching what a parent process may share with us."""
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None  # under _lock, as all below
        self._file: tuple[int, int] | None = None
        self._sweep = Sweep(self._policy)
        self._settled = 0

    def admit(self, ask: Ask) -> Decision:
        return self._transact(ask.bot, lambda books: decisions.admit(books, ask))

    def renew_unknown(self, ask: Ask) -> Decision:
        return self._transact(ask.bot, lambda books: decisions.renew_unknown(books, ask))

    def settle(self, ask: Ask, settlement: Settlement, grant: int | None = None) -> None:
        self._transact(ask.bot, lambda books: self._settle(books, ask, settlement, grant))

    def cancel(self, ask: Ask) -> Record:
        return self._transact(ask.bot, lambda books: decisions.cancel(books, ask))

    def lookup(self, bot: str, job_id: str) -> Record | None:
        return self._transact(bot, lambda books: decisions.lookup(books, job_id))

    def reopen(self, bot: str, job_id: str) -> Record | None:
        return self._transact(bot, lambda books: decisions.reopen(books, job_id))

    def mark_unreachable(self, bot: str, chat: str, why: str) -> None:
        self._transact(bot, lambda books: decisions.mark_unreachable(books, chat, why))

    def heard_from(self, bot: str, chat: str) -> bool:
        return self._transact(bot, lambda books: decisions.heard_from(books, chat))

    def unreachable(self, bot: str, limit: int = 1000, offset: int = 0) -> Sequence[UnreachableChat]:
        return self._transact(bot, lambda books: unreachable(books, limit, offset))

    def pause(self, bot: str, chat: str | None, duration: timedelta, why: str) -> None:
        self._transact(bot, lambda books: decisions.pause(books, chat, duration, why))

    def too_many_requests(self, bot: str, chat: str | None, retry_after: timedelta) -> Scope:
        return self._transact(bot, lambda books: decisions.too_many_requests(books, chat, retry_after))

    def resume(self, bot: str, chat: str | None) -> None:
        self._transact(bot, lambda books: decisions.resume(books, chat))

    def migrate(self, bot: str, old_chat: str, new_chat: str) -> None:
        self._transact(bot, lambda books: decisions.migrate(books, old_chat, new_chat))

    def vouch_idle(self, bot: str) -> None:
        self._transact(bot, decisions.vouch_idle)

    def snapshot(self, bot: str) -> Snapshot:
        return self._transact(bot, snapshot)

    def close(self) -> None:
        if os.getpid() == self._pid:
            with self._lock:
                self._drop()

    def _settle(self, books: SqliteBooks, ask: Ask, settlement: Settlement, grant: int | None) -> None:
        decisions.settle(books, ask, settlement, grant)
        self._settled += 1
        if self._settled % SWEEP_EVERY == 0:
            self._sweep.run(books)

    def _transact(self, bot: str, act: Callable[[SqliteBooks], T]) -> T:
        if os.getpid() != self._pid:
            self._forget()
        deadline = time.monotonic() + LOCK_SECONDS
        if not self._lock.acquire(timeout=LOCK_SECONDS):
            raise StateUnavailableError(locked(self._path))
        try:
            connection = self._open()
            begin(connection, deadline)
            result = act(SqliteBooks(connection, bot, self._policy, self._clock))
            connection.execute("COMMIT")
            return result
        except sqlite3.Error as error:
            self._drop()
            raise StateUnavailableError(explain(error, self._path)) from error
        except BaseException:
            self._drop()  # closing rolls back
            raise
        finally:
            self._lock.release()

    def _open(self) -> sqlite3.Connection:
        try:
            status = os.stat(self._path)  # noqa: PTH116 - a third of the time of Path.stat, on every call
            present: tuple[int, int] | None = (status.st_dev, status.st_ino)
        except OSError:
            present = None
        if self._connection is None or present != self._file or present is None:
            self._drop()
            self._connection = connect(self._path)
            status = self._path.stat()
            self._file = (status.st_dev, status.st_ino)
        return self._connection

    def _drop(self) -> None:
        connection, self._connection, self._file = self._connection, None, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()


def begin(connection: sqlite3.Connection, deadline: float) -> None:
    """Become the one writer, by the deadline. Whoever waits looks again at random, so that none is starved."""
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


def connect(path: Path) -> sqlite3.Connection:
    """Open the file, made readable by its owner only, and its schema."""
    _refuse_network_filesystem(path)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise StateUnavailableError(
            f"The state file {path} cannot be opened: {error.strerror}. Make it and its directory writable, or set "
            "FLOODGATE_STATE_URL to another place."
        ) from error
    connection = sqlite3.connect(path, timeout=LOCK_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA cache_size = -8000")
        connection.execute("PRAGMA journal_size_limit = 67108864")
        _install_schema(connection, path)
        connection.execute("PRAGMA busy_timeout = 0")  # from here on begin waits, and better
    except BaseException:
        connection.close()
        raise
    return connection


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
            "workers and move the file away: no message is lost, they are in RabbitMQ."
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
    """The kind of file system that holds ``path``; empty when it cannot be told."""
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


def locked(path: Path) -> str:
    """Somebody holds the file and does not let go."""
    return (
        f"The state file {path} has been locked for {LOCK_SECONDS:.0f} s. Look for a stopped worker or another program "
        "that has it open (fuser shows which)."
    )


def explain(error: sqlite3.Error, path: Path) -> str:
    """What SQLite raised: the file, the cause and the remedy."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    match code:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return locked(path)
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
