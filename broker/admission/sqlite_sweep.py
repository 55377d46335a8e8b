"""Forgetting: the ledger keeps ended jobs for so long, chats for as long as they matter.

A little at a time, within the transactions of settlements: each run looks at a few rows after the last one's and
deletes those whose time is over. A full round passes over all rows, so the file is bounded by the ledger's age, and
no index by time must be kept up for it.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from broker.admission.policy import CHAT_IDLE_US, Policy
from broker.admission.sqlite_books import SqliteBooks

# With a run every 64 settlements three rows are looked at for each new one: forgetting outruns growth.
ROWS_PER_RUN: Final = 200
WAITER_GONE_US: Final = 60 * 1_000_000

_SEEN: Final = "number IN (SELECT number FROM jobs WHERE number > ? ORDER BY number LIMIT ?)"
_OLD_JOBS: Final = f"""
DELETE FROM jobs WHERE {_SEEN} AND MAX(since, due) < ? AND (state >= 5 OR state IN (2, 3))
"""
# Jobs whose messages were purged: nobody came for them in all that time, nor for one behind them.
_GHOSTS: Final = f"""
UPDATE jobs SET state = state + 2 WHERE {_SEEN} AND due < ? AND state <= 1 RETURNING bot, chat, priority
"""
_SHORTER: Final = (
    "UPDATE chats SET i_length = i_length - 1 WHERE bot = ? AND chat = ?",
    "UPDATE chats SET b_length = b_length - 1 WHERE bot = ? AND chat = ?",
)
_IDLE_CHATS: Final = """
DELETE FROM chats WHERE bot = ? AND chat IN (SELECT chat FROM chats WHERE bot = ? AND chat > ? ORDER BY chat LIMIT ?)
AND i_length + b_length = 0 AND sending IS NULL AND MAX(last_place, paused_until, rest_until) < ? AND refused_at < ?
"""

_OLD_NAMES: Final = "DELETE FROM aliases WHERE bot = ? AND until > 0 AND until < ?"


class Sweep:
    """Where the last run ended. One a process; used within the store's transactions only."""

    def __init__(self, policy: Policy) -> None:
        self._ledger_us = policy.ledger_us
        self._unreachable_us = policy.unreachable_us
        self._job = 0
        self._chats: dict[str, str] = {}

    def run(self, books: SqliteBooks) -> None:
        db = books.connection
        self._sweep_jobs(db, books.now)
        self._sweep_chats(db, books.name, books.now)
        db.execute(_OLD_NAMES, (books.name, books.now - self._ledger_us))
        db.execute(
            "DELETE FROM bot_waiters WHERE bot = ? AND until < ?",
            (books.name, books.now - WAITER_GONE_US),
        )

    def _sweep_jobs(self, db: sqlite3.Connection, now: int) -> None:
        (last,) = db.execute(
            "SELECT number FROM jobs WHERE number > ? ORDER BY number LIMIT 1 OFFSET ?", (self._job, ROWS_PER_RUN - 1)
        ).fetchone() or (0,)
        old = now - self._ledger_us
        for bot, chat, priority in db.execute(_GHOSTS, (self._job, ROWS_PER_RUN, old)).fetchall():
            db.execute(_SHORTER[priority], (bot, chat))
        db.execute(_OLD_JOBS, (self._job, ROWS_PER_RUN, old))
        self._job = last

    def _sweep_chats(self, db: sqlite3.Connection, bot: str, now: int) -> None:
        after = self._chats.get(bot, "")
        (last,) = db.execute(
            "SELECT chat FROM chats WHERE bot = ? AND chat > ? ORDER BY chat LIMIT 1 OFFSET ?",
            (bot, after, ROWS_PER_RUN - 1),
        ).fetchone() or ("",)
        bounds = (now - CHAT_IDLE_US, now - self._unreachable_us)
        db.execute(_IDLE_CHATS, (bot, bot, after, ROWS_PER_RUN, *bounds))
        self._chats[bot] = last
