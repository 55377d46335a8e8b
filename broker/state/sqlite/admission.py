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

import logging
import sqlite3
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from floodgate.broker.admission import decisions, rebuilding
from floodgate.broker.admission.clock import Clock
from floodgate.broker.admission.contract import Go
from floodgate.broker.admission.explanation import explain
from floodgate.broker.admission.policy import Policy
from floodgate.broker.admission.rows import BotRow
from floodgate.broker.errors import StateError
from floodgate.broker.state.calls import AdmissionCall, BlockingAdmission
from floodgate.broker.state.memory import StoreMemory
from floodgate.broker.state.sqlite.file import NO_FILE, StateFile
from floodgate.broker.state.sqlite.machine_clock import MachineClock
from floodgate.broker.state.sqlite.row_cache import RowCache
from floodgate.broker.state.sqlite.status import not_kept, snapshot, unreachable, unreachable_among, waiting
from floodgate.broker.state.sqlite.sweep import Sweep
from floodgate.broker.state.sqlite.unit_of_work import SqliteUnitOfWork
from floodgate.broker.state.sqlite.witness import Witness, contradicts
from floodgate.broker.state.thread import StateThread

# The number of settlements between two sweeps of a few old rows.
SWEEP_EVERY: Final = 64

logger = logging.getLogger("floodgate.admission")

_ACTS: Final[dict[str, Callable[..., Any]]] = {
    "admit": decisions.admit,
    "enqueued": decisions.enqueued,
    "renew_unsettled": decisions.renew_unsettled,
    "settle": decisions.settle,
    "rejoin": decisions.rejoin,
    "restore_pace": decisions.restore_pace,
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


@dataclass(frozen=True, slots=True)
class _Done:
    """A transaction: its results, its connection, the bots it was about, and its note for the witness."""

    results: list[Any]
    connection: sqlite3.Connection
    bots: Sequence[BotRow]
    note: int


class SqliteAdmission(BlockingAdmission):
    """``contract.Admission`` on a SQLite file. Thread-safe and fork-safe; opens the file on first use."""

    def __init__(self, path: Path, policy: Policy, clock: Clock | None = None) -> None:
        self._file = StateFile(path)
        self._path = path
        self._policy = policy
        self._clock = clock or MachineClock()
        self._sweep = Sweep(policy)  # used within transactions, as the count
        self._cache = RowCache()
        self._settled = 0
        self._memory = StoreMemory()
        self._witness = Witness(path) if path != NO_FILE else None
        self._compared: sqlite3.Connection | None = None  # with the witness

    def close(self) -> None:
        self._file.close()
        if self._witness is not None:
            self._witness.close()

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
        done = self._file.transact(
            lambda db: self._carry_out(db, calls), self._cache.clear, lambda done: self._remember(calls, done)
        )
        return done.results

    def _remember(self, calls: Sequence[AdmissionCall], done: _Done) -> None:
        """Note what was committed."""
        self._compared = done.connection
        if self._witness is not None:
            self._witness.confirm(done.note)
        for bot in done.bots:
            self._memory.look(bot.bot, bot.epoch, bot.writes)
        for call, result in zip(calls, done.results, strict=True):
            self._memory.note(call, result)

    def _read(self, db: sqlite3.Connection, calls: Sequence[AdmissionCall]) -> list[Any] | None:
        """Execute read-only calls on one snapshot of the file, concurrently with writers. None if a bot is new and must
        be written."""
        db.execute("BEGIN")
        asked = [(call, SqliteUnitOfWork(db, call.bot, self._policy, self._clock)) for call in calls]
        unwritten = any(work.changed for _, work in asked)
        results = None if unwritten else [_ACTS[call.method](work, *call.arguments) for call, work in asked]
        db.execute("COMMIT")
        return results

    def _carry_out(self, db: sqlite3.Connection, calls: Sequence[AdmissionCall]) -> _Done:
        began = time.monotonic()
        self._cache.renew(db)
        if db is not self._compared:
            self._compare(db)
        work: dict[str, SqliteUnitOfWork] = {}
        results: list[Any] = []
        for call in calls:
            if (its := work.get(call.bot)) is None:
                its = work[call.bot] = self._open(db, call.bot)
            result = _ACTS[call.method](its, *call.arguments)
            results.append(replace(result, decided_at=began) if isinstance(result, Go) else result)
            if call.method == "settle":
                self._sweep_now_and_then(its)
        note = self._finish(work.values())
        return _Done(results, db, [each.bot for each in work.values()], note)

    def _open(self, db: sqlite3.Connection, bot: str) -> SqliteUnitOfWork:
        """Begin a bot's unit of work. If its store is not as this process remembers it, the store is told first."""
        work = SqliteUnitOfWork(db, bot, self._policy, self._clock, self._cache)
        row, seen = work.bot, self._memory.seen(bot)
        if seen.epoch and (row.epoch, row.writes) < seen:
            self._report(f"has lost its last writes for the bot {bot}")
            self._begin_epoch(work, seen.epoch, certain=True)
        elif seen.epoch and work.created:
            self._report(f"has lost what it knew of the bot {bot}")
        if seen.epoch and row.epoch != seen.epoch:
            told = self._memory.of(bot)
            for call in told:
                _ACTS[call.method](work, *call.arguments)
            logger.info("told the state file %s of %d jobs and changes of the last minute", self._path, len(told))
        return work

    def _finish(self, work: Collection[SqliteUnitOfWork]) -> int:
        """Write the deferred changes, and a note for the witness. Returns the note's number."""
        saved: tuple[str, int, int] | None = None
        outcome = 0
        for each in work:
            changed = each.changed
            each.finish()
            if changed:
                saved = each.name, each.bot.epoch, each.bot.writes
            if each.outcomes:
                outcome = each.now
        if self._witness is None or not (saved or outcome):
            return 0
        at = max(each.now for each in work)
        return self._witness.note(self._clock.read().boot, saved, outcome, at)

    def _compare(self, db: sqlite3.Connection) -> None:
        """Find out whether a file that was just opened is as its last user left it. If not, begin an epoch of every
        bot."""
        told = self._witness.read() if self._witness is not None else None
        reading = self._clock.read()
        if told is not None and told.boot != reading.boot:
            told = None
        bots = [bot for (bot,) in db.execute("SELECT bot FROM bots")]
        if told is not None:
            if not contradicts(db, told):
                return
            self._report("has lost its last writes" if bots else "has lost all its writes")
        elif bots:
            logger.info(
                "nobody has used the state file %s since this machine started: its last moments may be missing",
                self._path,
            )
        for bot in bots:
            work = SqliteUnitOfWork(db, bot, self._policy, self._clock, self._cache)
            if told is not None:
                self._begin_epoch(work, told.epoch, certain=True, last_write=told.at)
            else:
                self._begin_epoch(work, 0, certain=False, last_write=work.now - reading.ticks_us)
            work.finish()

    def _begin_epoch(self, work: SqliteUnitOfWork, after: int, *, certain: bool, last_write: int | None = None) -> None:
        rates = self._policy.rates(work.name)
        rebuilding.begin_epoch(work.bot, rates, work.now, after, certain=certain, last_write=last_write)
        work.save_bot()

    def _report(self, what: str) -> None:
        logger.error(
            "the state file %s %s. Sends that it has forgotten may be repeated; lines are rebuilt from what "
            "processes remember and RabbitMQ has, and budgets start as if they had just been used.",
            self._path,
            what,
        )

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
