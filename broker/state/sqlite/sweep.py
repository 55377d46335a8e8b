"""Deletes old rows: results after hours, ended jobs after the ledger's time, chats once they no longer matter.

This happens in small steps, within the transactions of settlements. Results and ended jobs are ordered by age, so a run
deletes the oldest and reads nothing else; each run may delete more rows than were added since the previous one. Jobs
whose messages were purged are in no such order: a slow scan of all rows finds them.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from floodgate.broker.admission.policy import CHAT_IDLE_US, Policy
from floodgate.broker.admission.rows import State
from floodgate.broker.state.sqlite.unit_of_work import ADD_TO_COUNT, DEAD, SqliteUnitOfWork

# A run every 64 settlements deletes up to three rows of each kind for each new one, so the tables cannot grow forever.
ROWS_PER_RUN: Final = 200
WAITER_GONE_US: Final = 60 * 1_000_000
_LAST_NUMBER: Final = 2**63 - 1

_OLDEST_RESULT: Final = "SELECT since FROM results ORDER BY number LIMIT 1"
_OLD_RESULTS: Final = """
DELETE FROM results
WHERE since < ? AND number IN (SELECT number FROM results ORDER BY number LIMIT ?)
"""
_OLD_JOBS: Final = """
DELETE FROM jobs WHERE number IN (
    SELECT number FROM jobs INDEXED BY ended WHERE bot = ? AND state >= 5 AND since < ? ORDER BY since LIMIT ?
) RETURNING state
"""
_NEXT_BOT: Final = "SELECT min(bot) FROM bots WHERE bot > ?"
_ROUND: Final = "SELECT number FROM jobs WHERE number > ? ORDER BY number LIMIT 1 OFFSET ?"
# Jobs whose messages were purged: in all that time neither they nor a job behind them asked for admission.
_GHOSTS: Final = """
UPDATE jobs SET state = state + 2 WHERE number > ? AND number <= ? AND due < ? AND state <= 1
RETURNING bot, chat, priority
"""
_OLD_GHOSTS: Final = """
DELETE FROM jobs WHERE number > ? AND number <= ? AND MAX(since, due) < ? AND state IN (2, 3)
"""
_SHORTER: Final = (
    "UPDATE chats SET i_length = i_length - 1 WHERE bot = ? AND chat = ?",
    "UPDATE chats SET b_length = b_length - 1 WHERE bot = ? AND chat = ?",
)
_IDLE_CHATS: Final = """
DELETE FROM chats WHERE bot = ? AND chat IN (SELECT chat FROM chats WHERE bot = ? AND chat > ? ORDER BY chat LIMIT ?)
AND i_length + b_length = 0 AND sending IS NULL AND MAX(last_place, paused_until, rest_until) < ? AND refused_at < ?
"""
# They are numbered by age.
_OLD_NOT_KEPT: Final = """
DELETE FROM not_kept WHERE bot = ? AND since <= ? AND number <= (SELECT min(number) FROM not_kept WHERE bot = ?) + ?
"""
_OLD_TYPING: Final = """
DELETE FROM typing WHERE bot = ?1 AND chat IN (SELECT chat FROM typing WHERE bot = ?1 AND over < ?2 LIMIT ?3)
"""
_OLD_ENQUEUED: Final = """
DELETE FROM enqueued WHERE (bot, chat, priority, coalesce_key) IN (
    SELECT bot, chat, priority, coalesce_key FROM enqueued INDEXED BY enqueued_over WHERE bot = ? AND over < ? LIMIT ?
)
"""
_OLD_SLOWED: Final = """
DELETE FROM slowed WHERE (bot, chat, family) IN (
    SELECT bot, chat, family FROM slowed INDEXED BY slowed_over WHERE bot = ? AND over <= ? LIMIT ?
)
"""
_OLD_NAMES: Final = "DELETE FROM aliases WHERE bot = ? AND until > 0 AND until < ?"


class Sweep:
    """Deletes old rows and remembers where the last run ended. One per process; used only within transactions."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.touched = 0  # rows of jobs and chats, by the last run
        self._job = 0
        self._bot = ""
        self._chats: dict[str, str] = {}

    def run(self, work: SqliteUnitOfWork) -> bool:
        """Delete a few old rows; return whether any job or chat was changed or deleted."""
        db = work.connection
        self.touched = 0
        self._sweep_results(db, work.now)
        self._sweep_jobs(db, work.name, work.now)
        self._sweep_ghosts(db, work.now)
        self._sweep_chats(db, work.name, work.now)
        if self._policy.listed_us is not None:
            db.execute(_OLD_NOT_KEPT, (work.name, work.now - self._policy.listed_us, work.name, ROWS_PER_RUN))
        db.execute(_OLD_TYPING, (work.name, work.now, ROWS_PER_RUN))
        db.execute(_OLD_ENQUEUED, (work.name, work.now, ROWS_PER_RUN))
        if work.bot.slowed_until:
            db.execute(_OLD_SLOWED, (work.name, work.now, ROWS_PER_RUN))
        db.execute(_OLD_NAMES, (work.name, work.now - self._policy.ledger_us))
        db.execute(
            "DELETE FROM bot_waiters WHERE bot = ? AND until < ?",
            (work.name, work.now - WAITER_GONE_US),
        )
        return self.touched > 0

    def _sweep_results(self, db: sqlite3.Connection, now: int) -> None:
        old = now - self._policy.result_us
        (oldest,) = db.execute(_OLDEST_RESULT).fetchone() or (old,)
        if oldest < old:
            db.execute(_OLD_RESULTS, (old, ROWS_PER_RUN))

    def _sweep_jobs(self, db: sqlite3.Connection, bot: str, now: int) -> None:
        """Delete old jobs of this bot, and of one other bot in turn, which may have stopped sending."""
        (following,) = db.execute(_NEXT_BOT, (self._bot,)).fetchone()
        self._bot = following or ""
        for each in {bot, self._bot}:
            gone = db.execute(_OLD_JOBS, (each, now - self._policy.ledger_us, ROWS_PER_RUN)).fetchall()
            if dead := sum(state == State.DEAD for (state,) in gone):
                db.execute(ADD_TO_COUNT, (each, DEAD, -dead))
            self.touched += len(gone)

    def _sweep_ghosts(self, db: sqlite3.Connection, now: int) -> None:
        (last,) = db.execute(_ROUND, (self._job, ROWS_PER_RUN - 1)).fetchone() or (None,)
        span = (self._job, last if last is not None else _LAST_NUMBER, now - self._policy.ledger_us)
        for bot, chat, priority in db.execute(_GHOSTS, span).fetchall():
            db.execute(_SHORTER[priority], (bot, chat))
            db.execute(ADD_TO_COUNT, (bot, priority, -1))
            self.touched += 1
        self.touched += db.execute(_OLD_GHOSTS, span).rowcount
        self._job = last or 0

    def _sweep_chats(self, db: sqlite3.Connection, bot: str, now: int) -> None:
        after = self._chats.get(bot, "")
        (last,) = db.execute(
            "SELECT chat FROM chats WHERE bot = ? AND chat > ? ORDER BY chat LIMIT 1 OFFSET ?",
            (bot, after, ROWS_PER_RUN - 1),
        ).fetchone() or ("",)
        bounds = (now - CHAT_IDLE_US, now - self._policy.unreachable_us)
        self.touched += db.execute(_IDLE_CHATS, (bot, bot, after, ROWS_PER_RUN, *bounds)).rowcount
        self._chats[bot] = last
