"""Admission in one SQLite file, shared by any number of processes of one machine.

Overview: each call is one ``BEGIN IMMEDIATE`` transaction: it loads a few rows by key, lets ``decisions`` change
them, and saves them. SQLite lets one writer in at a time, which is the point: the budget is one.

Durability: WAL with ``synchronous=NORMAL``. A crash of any process loses nothing. A crash of the machine may lose the
last moments, and with them the knowledge that a job was sent: it is then sent again, as if the network had failed.

The connection and its faults are :mod:`broker.admission.sqlite_file`'s. When a call fails nothing is sent until a later
one succeeds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final, TypeVar

from broker.admission import decisions
from broker.admission.clock import Clock, MachineClock
from broker.admission.contract import Ask, Decision, Record, Scope, Settlement, Snapshot, UnreachableChat
from broker.admission.policy import Policy
from broker.admission.sqlite_books import SqliteBooks
from broker.admission.sqlite_file import StateFile
from broker.admission.sqlite_status import snapshot, unreachable
from broker.admission.sqlite_sweep import Sweep

# Every so many settlements a few old rows are swept.
SWEEP_EVERY: Final = 64

T = TypeVar("T")


class SqliteAdmission:
    """``contract.Admission`` on a SQLite file. Thread-safe and fork-safe; opens nothing until it is used."""

    def __init__(self, path: Path, policy: Policy, clock: Clock | None = None) -> None:
        self._file = StateFile(path)
        self._policy = policy
        self._clock = clock or MachineClock()
        self._sweep = Sweep(policy)  # used within transactions, as the count
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
        self._file.close()

    def _settle(self, books: SqliteBooks, ask: Ask, settlement: Settlement, grant: int | None) -> None:
        decisions.settle(books, ask, settlement, grant)
        self._settled += 1
        if self._settled % SWEEP_EVERY == 0:
            self._sweep.run(books)

    def _transact(self, bot: str, act: Callable[[SqliteBooks], T]) -> T:
        return self._file.transact(lambda db: act(SqliteBooks(db, bot, self._policy, self._clock)))
