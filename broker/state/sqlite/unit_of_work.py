"""Admission's units of work on the tables of one SQLite file.

A transaction uses few rows, each found by key, however many jobs wait: the bot, the chat, the job, at most two heads of
lines (the first entries of a partial index), and the jobs in workers that wait for the bot's budget.
"""

from __future__ import annotations

import json
import sqlite3
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import astuple
from typing import Any, Final

from floodgate.broker.admission.circuit import Circuit, Silence
from floodgate.broker.admission.clock import Anchor, Clock, store_time
from floodgate.broker.admission.contract import CallFamily
from floodgate.broker.admission.policy import CANCELLED_KEPT_US, CANCELLED_MOST, TYPING_IDLE_US, FloodWait, Policy
from floodgate.broker.admission.rows import (
    Alias,
    BotRow,
    ChatRow,
    EnqueuedRow,
    JobRow,
    LineRow,
    SlowedRow,
    State,
    TypingRow,
)
from floodgate.broker.admission.windows import Budget, Log, cautious_budget
from floodgate.broker.messages.job import Priority
from floodgate.broker.state.sqlite.row_cache import RowCache

SCHEMA_VERSION: Final = 13
SCHEMA: Final = """
CREATE TABLE bots (
    bot TEXT PRIMARY KEY, boot TEXT, offset_us INTEGER, born INTEGER, granted INTEGER,
    free_log BLOB, free_arrival INTEGER, paid_log BLOB, paid_arrival INTEGER,
    paused_until INTEGER, pause_why TEXT, permille INTEGER, slowed_at INTEGER, refusals TEXT, aliases INTEGER,
    minute INTEGER, this_minute INTEGER, last_minute INTEGER, circuit TEXT,
    slowed_until INTEGER, waiting_interactive INTEGER, waiting_bulk INTEGER, dead INTEGER,
    epoch INTEGER, writes INTEGER, rebuilt INTEGER, unknown_until INTEGER, gap INTEGER, rollbacks INTEGER
) WITHOUT ROWID;
CREATE TABLE chats (
    bot TEXT, chat TEXT, log BLOB,
    i_length INTEGER, i_units INTEGER, i_missing INTEGER, b_length INTEGER, b_units INTEGER, b_missing INTEGER,
    last_place INTEGER, sending TEXT, sending_since INTEGER, lease_end INTEGER, rest_until INTEGER,
    paused_until INTEGER, pause_why TEXT, overtaken INTEGER, refused_at INTEGER, refused_why TEXT,
    PRIMARY KEY (bot, chat)
) WITHOUT ROWID;
CREATE INDEX refused ON chats (bot, refused_at) WHERE refused_at > 0;
-- Calls under way, and lost ones.
CREATE INDEX calls ON chats (bot, lease_end) WHERE sending IS NOT NULL;
-- For status. A chat that gets a message now and then is in none of them.
CREATE INDEX paused ON chats (bot, paused_until) WHERE paused_until > 0;
CREATE INDEX long_interactive ON chats (bot, i_length) WHERE i_length > 1;
CREATE INDEX long_bulk ON chats (bot, b_length) WHERE b_length > 1;
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY, bot TEXT, job_id TEXT, chat TEXT, priority INTEGER, state INTEGER, place INTEGER,
    units_before INTEGER, units INTEGER, due INTEGER, since INTEGER, lease_end INTEGER, bot_units INTEGER, paid INTEGER,
    rank INTEGER, unsettled INTEGER, handed_back INTEGER, reason TEXT, result INTEGER, content TEXT,
    coalesce_key TEXT, variant TEXT, final INTEGER, chain TEXT
);
CREATE UNIQUE INDEX jobs_by_id ON jobs (bot, job_id);
-- Only waiting jobs stand in it, so a job that goes at first sight never does.
CREATE INDEX lines ON jobs (bot, chat, priority, place) WHERE state <= 1;
-- Likewise, for the age of the oldest. Only a job without a line has no place.
CREATE INDEX oldest ON jobs (bot, priority, place) WHERE state <= 1 AND place > 0;
-- Jobs with a key, as long as they wait.
CREATE INDEX keyed ON jobs (bot, chat, priority, coalesce_key, place)
    WHERE coalesce_key IS NOT NULL AND state IN (0, 2);
-- For sweeping.
CREATE INDEX ended ON jobs (bot, since) WHERE state >= 5;
-- What sweeping, which passes over all bots, adds to the counts in their rows: waiting, by priority, and dead (2).
CREATE TABLE counts (bot TEXT, kind INTEGER, jobs INTEGER, PRIMARY KEY (bot, kind)) WITHOUT ROWID;
-- Outcomes of ended jobs of all bots in the order in which they ended, so listeners read on from the last they know.
-- What is over is at the front, and its pages are used again. Numbers begin anew when all rows are gone; a number that
-- is used again is told from the old one by its time.
CREATE TABLE results (number INTEGER PRIMARY KEY, job INTEGER, since INTEGER, outcome TEXT);
-- Jobs that ended without a dead letter: the latest, numbered one by one. All of them are counted by reason, and so are
-- dead letters that were dropped.
CREATE TABLE not_kept (
    bot TEXT, number INTEGER, job_id TEXT, chat TEXT, reason TEXT, since INTEGER,
    PRIMARY KEY (bot, number)
) WITHOUT ROWID;
CREATE TABLE without_letter (
    bot TEXT, dropped INTEGER, reason TEXT, jobs INTEGER, PRIMARY KEY (bot, dropped, reason)
) WITHOUT ROWID;
-- Campaigns whose jobs from before a time are cancelled; all of the bot's under the name ''.
CREATE TABLE cancelled (
    bot TEXT, campaign TEXT, before_ms INTEGER, since INTEGER, PRIMARY KEY (bot, campaign)
) WITHOUT ROWID;
CREATE TABLE bot_waiters (
    bot TEXT, paid INTEGER, rank INTEGER, job_id TEXT, units INTEGER, until INTEGER,
    PRIMARY KEY (bot, paid, rank, job_id)
) WITHOUT ROWID;
-- The typing and drafts of a chat. The row matters until "over".
CREATE TABLE typing (
    bot TEXT, chat TEXT, log BLOB, paused_until INTEGER, over INTEGER, PRIMARY KEY (bot, chat)
) WITHOUT ROWID;
CREATE INDEX typing_over ON typing (bot, over);
-- Jobs that were enqueued under a key, as far as no worker has received them. The row matters until "over".
CREATE TABLE enqueued (
    bot TEXT, chat TEXT, priority INTEGER, coalesce_key TEXT, variant TEXT, campaign TEXT, final INTEGER,
    first TEXT, newest TEXT, over INTEGER, first_chain TEXT, newest_chain TEXT,
    PRIMARY KEY (bot, chat, priority, coalesce_key)
) WITHOUT ROWID;
CREATE INDEX enqueued_over ON enqueued (bot, over);
-- Learned paces of chats. They matter until "over".
CREATE TABLE slowed (
    bot TEXT, chat TEXT, family TEXT, permille INTEGER, slowed_at INTEGER, next_at INTEGER, granted_at INTEGER,
    over INTEGER, PRIMARY KEY (bot, chat, family)
) WITHOUT ROWID;
CREATE INDEX slowed_over ON slowed (bot, over, family);
CREATE TABLE aliases (
    bot TEXT, chat TEXT, real TEXT, until INTEGER,
    PRIMARY KEY (bot, chat)
) WITHOUT ROWID;
CREATE INDEX names ON aliases (bot, until) WHERE until > 0;
"""

PRIORITIES: Final = (Priority.INTERACTIVE, Priority.BULK)
DEAD: Final = 2  # the kind of dead jobs in the counts table; waiting jobs are counted by the number of their priority
_NUMBERS: Final = {priority: number for number, priority in enumerate(PRIORITIES)}

_JOB: Final = (
    "job_id, chat, priority, state, place, units_before, units, due, since, lease_end, bot_units, paid, rank, "
    "unsettled, handed_back, reason, result, content, coalesce_key, variant, final, chain"
)
_SELECT_BOT: Final = "SELECT * FROM bots WHERE bot = ?"
_SAVE_BOT: Final = f"INSERT OR REPLACE INTO bots VALUES ({', '.join('?' * 29)})"
_SELECT_CHAT: Final = "SELECT * FROM chats WHERE bot = ? AND chat = ?"
_SAVE_CHAT: Final = f"INSERT OR REPLACE INTO chats VALUES ({', '.join('?' * 19)})"
_SELECT_JOB: Final = f"SELECT number, {_JOB} FROM jobs WHERE bot = ? AND job_id = ?"
_INSERT_JOB: Final = f"INSERT INTO jobs (bot, {_JOB}) VALUES ({', '.join('?' * 23)})"
_UPDATE_JOB: Final = (
    "UPDATE jobs SET chat = ?, priority = ?, state = ?, place = ?, units_before = ?, units = ?, due = ?, since = ?, "
    "lease_end = ?, bot_units = ?, paid = ?, rank = ?, unsettled = ?, handed_back = ?, reason = ?, result = ?, "
    "content = ?, coalesce_key = ?, variant = ?, final = ?, chain = ? WHERE number = ?"
)
_KEEP_OUTCOME: Final = "INSERT INTO results (job, since, outcome) VALUES (?, ?, ?)"
_SELECT_OUTCOME: Final = "SELECT outcome FROM results WHERE number = ? AND since = ?"
_SELECT_LINE: Final = (
    f"SELECT number, {_JOB} FROM jobs WHERE bot = ? AND chat = ? AND priority = ? AND state <= 1 ORDER BY place"
)
_LAST_OF_KEY: Final = (
    f"SELECT number, {_JOB} FROM jobs WHERE bot = ? AND chat = ? AND priority = ? AND coalesce_key = ? "
    "AND state IN (0, 2) ORDER BY place DESC LIMIT 1"
)
_SELECT_HEAD: Final = f"{_SELECT_LINE} LIMIT 1"
# WAITING becomes ABSENT and LOST becomes ABSENT_LOST, each two higher.
_STEP_OVER: Final = (
    "UPDATE jobs SET state = state + 2 "
    "WHERE bot = ? AND chat = ? AND priority = ? AND state <= 1 AND place < ? AND due < ?"
)
ADD_TO_COUNT: Final = "INSERT INTO counts VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET jobs = jobs + excluded.jobs"
_LAST_NOT_KEPT: Final = "SELECT COALESCE(max(number), 0) FROM not_kept WHERE bot = ?"
_LIST_NOT_KEPT: Final = "INSERT INTO not_kept VALUES (?, ?, ?, ?, ?, ?)"
_UNLIST: Final = "DELETE FROM not_kept WHERE bot = ? AND number <= ?"
_COUNT_WITHOUT_LETTER: Final = (
    "INSERT INTO without_letter VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET jobs = jobs + excluded.jobs"
)
_CANCELLED_BEFORE: Final = "SELECT max(before_ms) FROM cancelled WHERE bot = ? AND campaign IN ('', ?)"
_CANCEL: Final = (
    "INSERT INTO cancelled VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE "
    "SET before_ms = max(before_ms, excluded.before_ms), since = excluded.since"
)
_FORGET_CANCELLED: Final = (
    "DELETE FROM cancelled WHERE bot = ?1 AND (since < ?2 OR campaign NOT IN "
    "(SELECT campaign FROM cancelled WHERE bot = ?1 ORDER BY since DESC LIMIT ?3))"
)
_SELECT_TYPING: Final = "SELECT log, paused_until FROM typing WHERE bot = ? AND chat = ?"
_SAVE_TYPING: Final = "INSERT OR REPLACE INTO typing VALUES (?, ?, ?, ?, ?)"
_SELECT_ENQUEUED: Final = (
    "SELECT variant, campaign, final, first, newest, over, first_chain, newest_chain FROM enqueued "
    "WHERE bot = ? AND chat = ? AND priority = ? AND coalesce_key = ? AND over > ?"
)
_SAVE_ENQUEUED: Final = f"INSERT OR REPLACE INTO enqueued VALUES ({', '.join('?' * 12)})"
_SELECT_SLOWED: Final = (
    "SELECT permille, slowed_at, next_at, granted_at FROM slowed WHERE bot = ? AND chat = ? AND family = ? AND over > ?"
)
_SAVE_SLOWED: Final = "INSERT OR REPLACE INTO slowed VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_DROP_SLOWED: Final = "DELETE FROM slowed WHERE bot = ? AND chat = ? AND family = ?"
_SELECT_COUNT: Final = "SELECT jobs FROM counts WHERE bot = ? AND kind = ?"
_SELECT_ALIAS: Final = "SELECT real, until FROM aliases WHERE bot = ? AND chat = ?"
_SAVE_ALIAS: Final = "INSERT OR REPLACE INTO aliases VALUES (?, ?, ?, ?)"
_MOVE_ALIASES: Final = "UPDATE aliases SET real = ? WHERE bot = ? AND real = ?"
_UNITS_AHEAD: Final = (
    "SELECT COALESCE(SUM(units), 0) FROM bot_waiters "
    "WHERE bot = ? AND paid = ? AND (rank, job_id) < (?, ?) AND until >= ?"
)


class SqliteUnitOfWork:
    """``rows.UnitOfWork`` within a transaction that the store has begun. Call ``finish`` last."""

    def __init__(
        self, connection: sqlite3.Connection, bot: str, policy: Policy, clock: Clock, cache: RowCache | None = None
    ) -> None:
        self.connection = connection
        self.name = bot
        self.policy = policy
        self._cache = cache or RowCache()
        self._bot_changed = False
        self.created = False  # whether the store had not seen the bot before
        self.outcomes = False  # whether a job has ended
        self.bot, self.now = self._open_bot(clock)

    def _open_bot(self, clock: Clock) -> tuple[BotRow, int]:
        reading = clock.read()
        bot = self._cache.bots.get(self.name) or self._stored_bot()
        if bot is not None:
            self._cache.bots[self.name] = bot
            now, anchor = store_time(reading, bot.anchor, bot.granted)
            if anchor != bot.anchor:
                self.bot, bot.anchor = bot, anchor
                self.save_bot()  # otherwise time would stand still until the clock has caught up
            return bot, now
        now, anchor = store_time(reading, Anchor("", 0), 0)
        rates = self.policy.rates(self.name)
        free, paid = (cautious_budget(pace, now) if pace else Budget([]) for pace in (rates.free, rates.paid))
        bot = BotRow(self.name, anchor, free, paid, born=now, epoch=now)
        self.created = True
        self.bot = self._cache.bots[self.name] = bot
        self.save_bot()  # "born" must stay the same for later calls
        return bot, now

    def _stored_bot(self) -> BotRow | None:
        found = self.connection.execute(_SELECT_BOT, (self.name,)).fetchone()
        return None if found is None else _bot_row(found)

    def save_bot(self) -> None:
        self._bot_changed = True

    @property
    def changed(self) -> bool:
        """Whether :meth:`finish` has anything to write."""
        return self._bot_changed

    def finish(self) -> None:
        """Write the deferred changes."""
        if not self._bot_changed:
            return
        self._bot_changed = False
        bot = self.bot
        bot.writes += 1
        self.connection.execute(
            _SAVE_BOT,
            (
                bot.bot,
                *bot.anchor,
                bot.born,
                bot.granted,
                _packed(bot.free.log),
                bot.free.arrival_us,
                _packed(bot.paid.log),
                bot.paid.arrival_us,
                bot.paused_until,
                bot.pause_why,
                bot.permille,
                bot.slowed_at,
                json.dumps(bot.refusals) if bot.refusals else "[]",
                bot.aliases,
                bot.minute,
                bot.this_minute,
                bot.last_minute,
                _circuit_text(bot.circuit),
                bot.slowed_until,
                *bot.counts,
                bot.epoch,
                bot.writes,
                bot.rebuilt,
                bot.unknown_until,
                bot.gap_us,
                bot.rollbacks,
            ),
        )

    def job(self, job_id: str) -> JobRow | None:
        if (kept := self._cache.jobs.get((self.name, job_id))) is not None:
            return kept
        found = self.connection.execute(_SELECT_JOB, (self.name, job_id)).fetchone()
        return None if found is None else _job_row(found)

    def save_job(self, job: JobRow) -> None:
        self._cache.jobs[self.name, job.job_id] = job
        fields = (
            job.chat,
            _NUMBERS[job.priority],
            job.state,
            job.place,
            job.units_before,
            job.units,
            job.due,
            job.since,
            job.lease_end,
            job.bot_units,
            job.paid,
            job.rank,
            job.unsettled,
            job.handed_back,
            job.reason,
            job.result,
            job.content,
            job.key,
            job.variant,
            job.final,
            job.chain,
        )
        if (kind := _kind(job)) != job.counted:
            self._recount(job, kind)
        if job.number:
            self.connection.execute(_UPDATE_JOB, (*fields, job.number))
        else:
            job.number = self.connection.execute(_INSERT_JOB, (self.name, job.job_id, *fields)).lastrowid or 0

    def _recount(self, job: JobRow, kind: int | None) -> None:
        if job.counted is not None:
            self.count(job.counted, -1)
        if kind is not None:
            self.count(kind, 1)
        job.counted = kind

    def count(self, kind: int, added: int) -> None:
        """Add ``added`` (which may be negative) to the number of jobs of a kind."""
        self.bot.counts[kind] += added
        self.save_bot()

    def total(self, kind: int) -> int:
        """The number of jobs of a kind."""
        found = self.connection.execute(_SELECT_COUNT, (self.name, kind)).fetchone()
        return self.bot.counts[kind] + (found[0] if found else 0)

    def drop_job(self, job_id: str) -> None:
        if (job := self.job(job_id)) is not None:
            self._recount(job, None)
            self._cache.jobs.pop((self.name, job_id), None)
            self.connection.execute("DELETE FROM jobs WHERE number = ?", (job.number,))

    def keep_outcome(self, job: JobRow, outcome: str) -> None:
        if not job.number:
            self.save_job(job)
        self.outcomes = True
        job.result = self.connection.execute(_KEEP_OUTCOME, (job.number, self.now, outcome)).lastrowid or 0

    def outcome(self, job: JobRow) -> str | None:
        found = self.connection.execute(_SELECT_OUTCOME, (job.result, job.since)).fetchone() if job.result else None
        return None if found is None else str(found[0])

    def count_not_kept(self, reason: str) -> None:
        self.connection.execute(_COUNT_WITHOUT_LETTER, (self.name, False, reason, 1))

    def list_not_kept(self, job_id: str, chat: str | None, reason: str) -> None:
        (last,) = self.connection.execute(_LAST_NOT_KEPT, (self.name,)).fetchone()
        self.connection.execute(_LIST_NOT_KEPT, (self.name, last + 1, job_id, chat, reason, self.now))
        self.connection.execute(_UNLIST, (self.name, last + 1 - self.policy.listed))

    def typing(self, chat: str) -> TypingRow:
        found = self.connection.execute(_SELECT_TYPING, (self.name, chat)).fetchone()
        return TypingRow(chat, []) if found is None else TypingRow(chat, _unpacked(found[0]), found[1])

    def save_typing(self, row: TypingRow) -> None:
        over = max(row.paused_until, self.now + TYPING_IDLE_US)
        self.connection.execute(_SAVE_TYPING, (self.name, row.chat, _packed(row.log), row.paused_until, over))

    def enqueued(self, chat: str, priority: Priority, key: str) -> EnqueuedRow | None:
        which = (self.name, chat, _NUMBERS[priority], key, self.now)
        found = self.connection.execute(_SELECT_ENQUEUED, which).fetchone()
        if found is None:
            return None
        variant, campaign, final, *rest = found
        return EnqueuedRow(chat, priority, key, variant, campaign, bool(final), *rest)

    def save_enqueued(self, row: EnqueuedRow) -> None:
        which = (self.name, row.chat, _NUMBERS[row.priority], row.key)
        ids = (row.first, row.newest, row.over, row.first_chain, row.newest_chain)
        self.connection.execute(_SAVE_ENQUEUED, (*which, row.variant, row.campaign, row.final, *ids))

    def slowed(self, chat: str, family: CallFamily) -> SlowedRow | None:
        found = self.connection.execute(_SELECT_SLOWED, (self.name, chat, family, self.now)).fetchone()
        return None if found is None else SlowedRow(chat, family, *found)

    def save_slowed(self, row: SlowedRow) -> None:
        times = row.slowed_at, row.next_at, row.granted_at, row.recovered_at
        self.connection.execute(_SAVE_SLOWED, (self.name, row.chat, row.family, row.permille, *times))

    def drop_slowed(self, row: SlowedRow) -> None:
        self.connection.execute(_DROP_SLOWED, (self.name, row.chat, row.family))

    def cancelled_before(self, campaign: str | None) -> int:
        (before_ms,) = self.connection.execute(_CANCELLED_BEFORE, (self.name, campaign or "")).fetchone()
        return before_ms or 0

    def cancel_before(self, campaign: str | None, before_ms: int) -> None:
        self.connection.execute(_CANCEL, (self.name, campaign or "", before_ms, self.now))
        self.connection.execute(_FORGET_CANCELLED, (self.name, self.now - CANCELLED_KEPT_US, CANCELLED_MOST))

    def count_dropped(self, reason: str, letters: int) -> None:
        self.connection.execute(_COUNT_WITHOUT_LETTER, (self.name, True, reason, letters))

    def chat(self, chat: str) -> ChatRow | None:
        if (kept := self._cache.chats.get((self.name, chat))) is not None:
            return kept
        found = self.connection.execute(_SELECT_CHAT, (self.name, chat)).fetchone()
        return None if found is None else _chat_row(found)

    def save_chat(self, chat: ChatRow) -> None:
        self._cache.chats[self.name, chat.chat] = chat
        self.connection.execute(
            _SAVE_CHAT,
            (
                self.name,
                chat.chat,
                _packed(chat.log),
                chat.interactive.length,
                chat.interactive.units,
                chat.interactive.missing_since,
                chat.bulk.length,
                chat.bulk.units,
                chat.bulk.missing_since,
                chat.last_place,
                chat.sending,
                chat.sending_since,
                chat.lease_end,
                chat.rest_until,
                chat.paused_until,
                chat.pause_why,
                chat.overtaken,
                chat.refused_at,
                chat.refused_why,
            ),
        )

    def drop_chat(self, chat: str) -> None:
        self._cache.chats.pop((self.name, chat), None)
        self.connection.execute("DELETE FROM chats WHERE bot = ? AND chat = ?", (self.name, chat))

    def head(self, chat: str, priority: Priority) -> JobRow | None:
        found = self.connection.execute(_SELECT_HEAD, (self.name, chat, _NUMBERS[priority])).fetchone()
        return None if found is None else _job_row(found)

    def last_of_key(self, chat: str, priority: Priority, key: str) -> JobRow | None:
        found = self.connection.execute(_LAST_OF_KEY, (self.name, chat, _NUMBERS[priority], key)).fetchone()
        return None if found is None else _job_row(found)

    def line(self, chat: str, priority: Priority) -> Sequence[JobRow]:
        return [
            _job_row(found) for found in self.connection.execute(_SELECT_LINE, (self.name, chat, _NUMBERS[priority]))
        ]

    def step_over(self, chat: str, priority: Priority, before: int, due_before: int) -> int:
        self._cache.jobs.clear()
        found = self.connection.execute(_STEP_OVER, (self.name, chat, _NUMBERS[priority], before, due_before))
        self.count(_NUMBERS[priority], -found.rowcount)
        return found.rowcount

    def alias(self, chat: str) -> Alias | None:
        if not self.bot.aliases:
            return None
        found = self.connection.execute(_SELECT_ALIAS, (self.name, chat)).fetchone()
        return None if found is None else Alias(*found)

    def save_alias(self, chat: str, alias: Alias) -> None:
        self.connection.execute(_SAVE_ALIAS, (self.name, chat, *alias))
        self.bot.aliases += 1
        self.save_bot()

    def move_aliases(self, old_chat: str, new_chat: str) -> None:
        self.connection.execute(_MOVE_ALIASES, (new_chat, self.name, old_chat))

    def units_ahead(self, job: JobRow, rank: int, asking_since: int) -> int:
        found = self.connection.execute(_UNITS_AHEAD, (self.name, job.paid, rank, job.job_id, asking_since)).fetchone()
        return int(found[0])

    def wait_for_bot(self, job: JobRow) -> None:
        self.connection.execute(
            "INSERT OR REPLACE INTO bot_waiters VALUES (?, ?, ?, ?, ?, ?)",
            (self.name, job.paid, job.rank, job.job_id, job.bot_units, job.due),
        )

    def stop_waiting(self, job: JobRow) -> None:
        if job.rank:
            self.connection.execute(
                "DELETE FROM bot_waiters WHERE bot = ? AND paid = ? AND rank = ? AND job_id = ?",
                (self.name, job.paid, job.rank, job.job_id),
            )
            job.rank = 0


def _packed(log: Log) -> bytes:
    return array("q", log).tobytes() if log else b""


def _unpacked(blob: bytes) -> Log:
    return array("q", blob).tolist()


def _bot_row(found: Sequence[Any]) -> BotRow:
    bot, boot, offset, born, granted, free_log, free_at, paid_log, paid_at, *rest = found
    (
        paused_until,
        pause_why,
        permille,
        slowed_at,
        refusals,
        aliases,
        minute,
        this_minute,
        last_minute,
        circuit,
        slowed_until,
        interactive,
        bulk,
        dead,
        epoch,
        writes,
        rebuilt,
        unknown_until,
        gap,
        rollbacks,
    ) = rest
    return BotRow(
        bot,
        Anchor(boot, offset),
        Budget(_unpacked(free_log), free_at),
        Budget(_unpacked(paid_log), paid_at),
        born,
        granted,
        paused_until,
        pause_why,
        permille,
        slowed_at,
        _refusals(json.loads(refusals)) if refusals != "[]" else [],
        aliases,
        minute,
        this_minute,
        last_minute,
        _circuit(circuit) if circuit else None,
        slowed_until,
        epoch,
        writes,
        rebuilt,
        unknown_until,
        gap,
        rollbacks,
        [interactive, bulk, dead],
    )


def _kind(job: JobRow) -> int | None:
    if job.state <= State.LOST:
        return _NUMBERS[job.priority]
    return DEAD if job.state is State.DEAD else None


def _circuit_text(circuit: Circuit | None) -> str | None:
    return json.dumps(astuple(circuit)) if circuit is not None else None


def _circuit(text: str) -> Circuit:
    silences, *rest = json.loads(text)
    return Circuit([Silence(*one) for one in silences], *rest)


def _refusals(found: Iterable[Sequence[Any]]) -> list[FloodWait]:
    return [FloodWait(*one) for one in found]


def _chat_row(found: Sequence[Any]) -> ChatRow:
    _, chat, log, i_length, i_units, i_missing, b_length, b_units, b_missing, *rest = found
    interactive, bulk = LineRow(i_length, i_units, i_missing), LineRow(b_length, b_units, b_missing)
    return ChatRow(chat, _unpacked(log), interactive, bulk, *rest)


def _job_row(found: Sequence[Any]) -> JobRow:
    number, job_id, chat, priority, state, *rest = found
    job = JobRow(job_id, chat, PRIORITIES[priority], State(state), *rest)
    job.paid, job.final = bool(job.paid), bool(job.final)
    job.number, job.counted = number, _kind(job)
    return job
