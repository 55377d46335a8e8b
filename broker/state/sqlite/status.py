"""Queries of operators and gateways. They read counters and short index ranges, however many jobs wait."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from floodgate.broker.admission.contract import CallFamily, Line, NotKept, Pause, SlowedChat, Snapshot, UnreachableChat
from floodgate.broker.admission.explanation import slowed_chat
from floodgate.broker.admission.policy import MINUTE, SECOND, learned_permille, per_second
from floodgate.broker.admission.rows import BotRow, SlowedRow
from floodgate.broker.messages.job import Priority
from floodgate.broker.state.sqlite.unit_of_work import DEAD, PRIORITIES, SqliteUnitOfWork

_OLDEST: Final = (
    "SELECT min(place) FROM jobs INDEXED BY oldest WHERE bot = ? AND priority = ? AND state <= 1 AND place > 0"
)
SHOWN: Final = 10  # longest lines, longest pauses and slowed chats
_LONGEST: Final = "SELECT chat, {0} FROM chats WHERE bot = ? AND {0} > 1 ORDER BY {0} DESC LIMIT ?"
_SLOWED: Final = (
    "SELECT chat, family, permille, slowed_at, next_at, granted_at FROM slowed WHERE bot = ? AND over > ? "
    "ORDER BY over DESC, chat, family LIMIT ?"
)
_SLOWED_CHATS: Final = "SELECT family, count(*) FROM slowed WHERE bot = ? AND over > ? GROUP BY family"
_AMONG: Final = (
    "SELECT asked.value FROM json_each(?) AS asked "
    "LEFT JOIN aliases ON aliases.bot = ? AND aliases.chat = asked.value AND (until = 0 OR until > ?) "
    "JOIN chats ON chats.bot = ? AND chats.chat = coalesce(aliases.real, asked.value) "
    "WHERE refused_at > 0 AND refused_at > ?"
)


def waiting(work: SqliteUnitOfWork) -> dict[Priority, int]:
    """Return how many jobs wait, by priority."""
    return {priority: work.total(number) for number, priority in enumerate(PRIORITIES)}


def sending(work: SqliteUnitOfWork) -> int:
    """Return how many calls are under way."""
    under_way = "SELECT count(*) FROM chats WHERE bot = ? AND sending IS NOT NULL AND lease_end > ?"
    return _count(work.connection, under_way, work.name, work.now)


def snapshot(work: SqliteUnitOfWork) -> Snapshot:
    """Return what ``floodgate status`` shows of the bot."""
    db, bot, now = work.connection, work.name, work.now
    return Snapshot(
        bot=bot,
        # Units from before the bot's birth were not sent: they make a new bot start cautiously.
        sent_last_second=sum(1 for at in work.bot.free.log if at > max(now - SECOND, work.bot.born - 1)),
        per_second_limit=working_rate(work),
        sent_last_minute=last_minute(work.bot, now),
        sending=sending(work),
        waiting=waiting(work),
        pauses=_pauses(work),
        longest_lines=_longest_lines(db, bot),
        dead=work.total(DEAD),
        unreachable=_count(
            db,
            "SELECT count(*) FROM chats WHERE bot = ? AND refused_at > 0 AND refused_at > ?",
            bot,
            _refused_since(work),
        ),
        not_kept=_without_letter(work, dropped=False),
        dropped=_without_letter(work, dropped=True),
        outage=_outage(work),
        oldest=_oldest(work),
        slowed=_slowed(work),
        slowed_chats=_slowed_chats(work),
        rollbacks=work.bot.rollbacks,
        rolled_back=timedelta(microseconds=now - work.bot.rebuilt) if work.bot.rollbacks else None,
    )


def _slowed(work: SqliteUnitOfWork) -> tuple[SlowedChat, ...]:
    found = work.connection.execute(_SLOWED, (work.name, work.now, SHOWN))
    return tuple(slowed_chat(work, SlowedRow(chat, CallFamily(family), *rest)) for chat, family, *rest in found)


def _slowed_chats(work: SqliteUnitOfWork) -> dict[CallFamily, int]:
    return {
        CallFamily(family): chats for family, chats in work.connection.execute(_SLOWED_CHATS, (work.name, work.now))
    }


def _oldest(work: SqliteUnitOfWork) -> dict[Priority, timedelta]:
    found = {
        priority: work.connection.execute(_OLDEST, (work.name, number)).fetchone()[0]
        for number, priority in enumerate(PRIORITIES)
    }
    return {priority: timedelta(microseconds=max(0, work.now - place)) for priority, place in found.items() if place}


def _without_letter(work: SqliteUnitOfWork, *, dropped: bool) -> dict[str, int]:
    found = work.connection.execute(
        "SELECT reason, jobs FROM without_letter WHERE bot = ? AND dropped = ?", (work.name, dropped)
    )
    return dict(found)


def not_kept(work: SqliteUnitOfWork, limit: int, offset: int) -> tuple[NotKept, ...]:
    kept_us = work.policy.listed_us
    found = work.connection.execute(
        "SELECT job_id, chat, reason, since FROM not_kept WHERE bot = ? AND since > ? "
        "ORDER BY number DESC LIMIT ? OFFSET ?",
        (work.name, 0 if kept_us is None else work.now - kept_us, limit, offset),
    )
    return tuple(
        NotKept(job_id, chat, reason, timedelta(microseconds=work.now - since)) for job_id, chat, reason, since in found
    )


def _outage(work: SqliteUnitOfWork) -> timedelta | None:
    circuit = work.bot.circuit
    if circuit is None or not circuit.open_since:
        return None
    return timedelta(microseconds=work.now - circuit.open_since)


def unreachable(work: SqliteUnitOfWork, limit: int, offset: int) -> tuple[UnreachableChat, ...]:
    found = work.connection.execute(
        "SELECT chat, refused_why, refused_at FROM chats WHERE bot = ? AND refused_at > 0 AND refused_at > ? "
        "ORDER BY refused_at DESC, chat LIMIT ? OFFSET ?",
        (work.name, _refused_since(work), limit, offset),
    )
    return tuple(UnreachableChat(chat, why, timedelta(microseconds=work.now - at)) for chat, why, at in found)


def unreachable_among(work: SqliteUnitOfWork, chats: Sequence[str]) -> tuple[str, ...]:
    found = work.connection.execute(_AMONG, (json.dumps(chats), work.name, work.now, work.name, _refused_since(work)))
    return tuple(chat for (chat,) in found)


def _refused_since(work: SqliteUnitOfWork) -> int:
    return max(0, work.now - work.policy.unreachable_us)


def working_rate(work: SqliteUnitOfWork) -> float:
    bot = work.bot
    return per_second(work.policy.rates(bot.bot).free, learned_permille(bot.permille, bot.slowed_at, work.now))


def last_minute(bot: BotRow, now: int) -> int:
    """Return the units of the last minute, assuming that those of the previous calendar minute were spread evenly."""
    age = now - bot.minute
    if age >= 2 * MINUTE:
        return 0
    if age >= MINUTE:
        return bot.this_minute * (2 * MINUTE - age) // MINUTE
    return bot.this_minute + bot.last_minute * (MINUTE - age) // MINUTE


def _pauses(work: SqliteUnitOfWork) -> tuple[Pause, ...]:
    found = work.connection.execute(
        "SELECT chat, paused_until, pause_why FROM chats WHERE bot = ? AND paused_until > 0 AND paused_until > ? "
        "ORDER BY paused_until DESC LIMIT ?",
        (work.name, work.now, SHOWN),
    ).fetchall()
    if work.bot.paused_until > work.now:
        found.insert(0, (None, work.bot.paused_until, work.bot.pause_why))
    return tuple(Pause(chat, timedelta(microseconds=until - work.now), why) for chat, until, why in found)


def _longest_lines(db: sqlite3.Connection, bot: str) -> tuple[Line, ...]:
    found = [
        Line(chat, priority, length)
        for priority, column in zip(PRIORITIES, ("i_length", "b_length"), strict=True)
        for chat, length in db.execute(_LONGEST.format(column), (bot, SHOWN))
    ]
    return tuple(sorted(found, key=lambda line: (-line.length, line.chat))[:SHOWN])


def _count(db: sqlite3.Connection, query: str, *arguments: object) -> int:
    (count,) = db.execute(query, arguments).fetchone()
    return int(count)
