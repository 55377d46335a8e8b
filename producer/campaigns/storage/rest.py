"""Puts off recipients whose chats got a message of another campaign of the bot lately.

A recipient who is put off keeps waiting, and is out of the way until then: ``due_ms`` is part of the index by which
recipients are released. So each is looked at once for every rest of its chat, not at every release.

A chat for which another campaign has a job out, which may be taken back, is looked at again after
:data:`LOOK_AGAIN_SECONDS`. Campaigns with a rest are released one after another for each bot, so of two that want the
same chat at once, one gets it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import Connection, Row, bindparam, or_, select, text, update

from floodgate.producer.campaigns.storage.chat_lookup import select_by_chat
from floodgate.producer.campaigns.storage.tables import CONTACTED, campaigns, recipients

LOOK_AGAIN_SECONDS: Final = 5
# Namespace of PostgreSQL's locks for that.
_LOCKS: Final = 7013


def lock_bot(db: Connection, bot: str) -> None:
    """Wait until no other transaction releases recipients of a bot's campaigns that have a rest."""
    if db.dialect.name == "postgresql":  # SQLite has one writer at a time
        db.execute(text("SELECT pg_advisory_xact_lock(:locks, hashtext(:bot))"), {"locks": _LOCKS, "bot": bot})


def put_off_resting(
    db: Connection, bot: str, rest: timedelta, rows: Sequence[Row[Any]], now_ms: int
) -> Sequence[Row[Any]]:
    """Put off the recipients whose chats rest, and return the others."""
    until = _resting(db, bot, rest // timedelta(milliseconds=1), [row.chat for row in rows], now_ms)
    late = [{"of": row.campaign, "at": row.number, "until": until[row.chat]} for row in rows if row.chat in until]
    if late:
        row = (recipients.c.campaign == bindparam("of"), recipients.c.number == bindparam("at"))
        db.execute(update(recipients).where(*row).values(due_ms=bindparam("until")), late)
    return [row for row in rows if row.chat not in until]


def _resting(db: Connection, bot: str, rest_ms: int, chats: Sequence[str], now_ms: int) -> dict[str, int]:
    """Return until when chats rest, for those that do."""
    lately = or_(recipients.c.ended_ms.is_(None), recipients.c.ended_ms > now_ms - rest_ms)
    # The sum keeps SQLite from looking each chat up in each campaign of the bot instead of once.
    of_bot = (recipients.c.campaign + 0).in_(
        select(campaigns.c.id).where(campaigns.c.bot == bot, campaigns.c.corrects.is_(None))
    )
    statement = select(recipients.c.chat, recipients.c.ended_ms).where(CONTACTED, lately, of_bot)
    until: dict[str, int] = {}
    for row in select_by_chat(db, statement, chats):
        due_ms = now_ms + LOOK_AGAIN_SECONDS * 1000 if row.ended_ms is None else row.ended_ms + rest_ms
        until[row.chat] = max(due_ms, until.get(row.chat, 0))
    return until
