"""Admission in one SQLite file, shared by any number of processes of one machine.

Overview: a call, or a batch of calls, is one ``BEGIN IMMEDIATE`` transaction: it loads a few rows by key, lets
``decisions`` change them, and saves them. SQLite allows one writer at a time, as the shared budget requires.

Batches run on the state thread, because a transaction may have to wait for the lock or the disk, and the event loop
must not. A failed batch changes nothing. If a call hits a bug, its batch is rolled back and the calls are executed one
by one, so that only that call fails.

Durability: WAL with ``synchronous=NORMAL``. A crash of a process loses nothing. A crash of the machine may lose the
last moments, including the record that a job was sent: the job is then sent again, as after a network failure.

:mod:`floodgate.broker.state.sqlite.file` manages the connection and translates its errors. After a failed call nothing
is sent until a later call succeeds.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from floodgate.broker.admission import decisions
from floodgate.broker.admission.clock import Clock
from floodgate.broker.admission.contract import Go
from floodgate.broker.admission.explanation import explain
from floodgate.broker.admission.policy import Policy
from floodgate.broker.errors import StateError
from floodgate.broker.state.calls import AdmissionCall, BlockingAdmission
from floodgate.broker.state.sqlite.file import StateFile
from floodgate.broker.state.sqlite.machine_clock import MachineClock
from floodgate.broker.state.sqlite.row_cache import RowCache
from floodgate.broker.state.sqlite.status import not_kept, snapshot, unreachable, unreachable_among, waiting
from floodgate.broker.state.sqlite.sweep import Sweep
from floodgate.broker.state.sqlite.unit_of_work import SqliteUnitOfWork
from floodgate.broker.state.thread import StateThread

# The number of settlements between two sweeps of a few old rows.
SWEEP_EVERY: Final = 64

_ACTS: Final[dict[str, Callable[..., Any]]] = {
    "admit": decisions.admit,
    "renew_unsettled": decisions.renew_unsettled,
    "settle": decisions.settle,
    "cancel": decisions.cancel,
    "cancel_campaign": decisions.cancel_campaign,
    "lookup": decisions.lookup,
    "reopen": decisions.reopen,
    "mark_unreachable": decisions.mark_unreachable,
    "heard_from": decisions.heard_from,
    "unreachable": unreachable,
    "unreachable_among": unreachable_among,
    "not_kept": not_kept,
    "count_dropped": decisions.count_dropped,
    "pause": decisions.pause,
    "too_many_requests": decisions.too_many_requests,
    "resume": decisions.resume,
    "migrate": decisions.migrate,
    "vouch_idle": decisions.vouch_idle,
    "waiting": waiting,
    "snapshot": snapshot,
    "explain": explain,
}
# Read-only calls, which need not wait for the writer.
_READS: Final = frozenset({"lookup", "unreachable", "unreachable_among", "not_kept", "waiting", "snapshot", "explain"})


class SqliteAdmission(BlockingAdmission):
    """``contract.Admission`` on a SQLite file. Thread-safe and fork-safe; opens the file on first use."""

    def __init__(self, path: Path, policy: Policy, clock: Clock | None = None) -> None:
        self._file = StateFile(path)
        self._policy = policy
        self._clock = clock or MachineClock()
        self._sweep = Sweep(policy)  # used within transactions, as the count
        self._cache = RowCache()
        self._settled = 0

    def close(self) -> None:
        self._file.close()

    def do_all(self, calls: Sequence[AdmissionCall]) -> list[Any]:
        """Execute calls in one transaction and return a result or an exception for each. Blocking."""
        try:
            return self._transact(calls)
        except StateError as error:
            return [error] * len(calls)
        except Exception as error:  # noqa: BLE001  # a bug in one call must not fail the others
            return [error] if len(calls) == 1 else [self.do_all([call])[0] for call in calls]

    def _do(self, call: AdmissionCall) -> Any:
        (result,) = self._transact([call])
        return result

    def _transact(self, calls: Sequence[AdmissionCall]) -> list[Any]:
        if all(call.method in _READS for call in calls):
            found = self._file.use(lambda db: self._read(db, calls), on_failure=self._cache.clear)
            if found is not None:
                return found
        return self._file.transact(lambda db: self._carry_out(db, calls), on_failure=self._cache.clear)

    def _read(self, db: sqlite3.Connection, calls: Sequence[AdmissionCall]) -> list[Any] | None:
        """Execute read-only calls on one snapshot of the file, concurrently with writers. None if a bot is new and must
        be written."""
        db.execute("BEGIN")
        asked = [(call, SqliteUnitOfWork(db, call.bot, self._policy, self._clock)) for call in calls]
        unwritten = any(work.changed for _, work in asked)
        results = None if unwritten else [_ACTS[call.method](work, *call.arguments) for call, work in asked]
        db.execute("COMMIT")
        return results

    def _carry_out(self, db: sqlite3.Connection, calls: Sequence[AdmissionCall]) -> list[Any]:
        began = time.monotonic()
        self._cache.renew(db)
        work: dict[str, SqliteUnitOfWork] = {}
        results: list[Any] = []
        for call in calls:
            if (its := work.get(call.bot)) is None:
                its = work[call.bot] = SqliteUnitOfWork(db, call.bot, self._policy, self._clock, self._cache)
            result = _ACTS[call.method](its, *call.arguments)
            results.append(replace(result, decided_at=began) if isinstance(result, Go) else result)
            if call.method == "settle":
                self._sweep_now_and_then(its)
        for each in work.values():
            each.finish()
        return results

    def _sweep_now_and_then(self, work: SqliteUnitOfWork) -> None:
        self._settled += 1
        if self._settled % SWEEP_EVERY == 0 and self._sweep.run(work):
            self._cache.jobs.clear()
            self._cache.chats.clear()


class SqliteBatches:
    """``calls.Batches`` on a SQLite file: one transaction per batch, on the state thread."""

    def __init__(self, store: SqliteAdmission, thread: StateThread) -> None:
        self._store = store
        self._thread = thread

    def begin(self, calls: Sequence[AdmissionCall], done: Callable[[Sequence[Any]], None]) -> None:
        self._thread.submit(partial(self._store.do_all, calls), done)

    async def close(self) -> None:
        self._store.close()
