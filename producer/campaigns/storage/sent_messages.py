"""The statements by which a correction takes its audience from the recipients of the campaign that it corrects.

A recipient has the same number in both, so the time at which its message was sent need not be copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, and_, func, insert, literal, not_, or_, select

from floodgate.producer.campaigns.states import RecipientState
from floodgate.producer.campaigns.storage.tables import recipients

# "A message can only be deleted if it was sent less than 48 hours ago." In groups and channels a bot may have the right
# to delete any, so there Telegram is asked.
DELETABLE: Final = timedelta(hours=48)
TOO_OLD: Final = "the message is older than 48 hours, so Telegram does not delete it"
NO_MESSAGE_ID: Final = "the message's id is not known"
GONE: Final = "the message was deleted by an earlier correction"


@dataclass(frozen=True, slots=True)
class UncorrectableMessages:
    """Messages that cannot be corrected for one reason. ``first`` is the number of the first recipient."""

    why: str
    number: int
    first: int
    chat: str


def copy_recipients(
    db: Connection, corrected: int, correction: int, deletions: Sequence[int], deletable_ms: int | None
) -> tuple[int, list[UncorrectableMessages]]:
    """Let the recipients of the campaign ``corrected`` wait in the campaign ``correction`` if their message can be
    corrected. Return their number, and the others.

    Args:
        deletions: earlier corrections that delete messages.
        deletable_ms: messages that were sent before this time cannot be corrected; None if age does not matter.
    """
    gone = and_(recipients.c.message_id.is_not(None), recipients.c.number.in_(_deleted(deletions)))
    refused: dict[str, ColumnElement[bool]] = {NO_MESSAGE_ID: recipients.c.message_id.is_(None), GONE: gone}
    if deletable_ms is not None:
        refused[TOO_OLD] = and_(not_(or_(*refused.values())), _too_old(deletable_ms))
    sent = and_(recipients.c.campaign == corrected, recipients.c.state == RecipientState.SENT)
    found = [_counted(db, why, and_(sent, condition)) for why, condition in refused.items()]
    columns = ("number", "chat", "fields", "variant", "message_id")
    values = {"campaign": literal(correction), "zone": literal(0), "state": literal(int(RecipientState.WAITING))}
    chosen = select(*values.values(), *(recipients.c[name] for name in columns)).where(
        sent, not_(or_(*refused.values()))
    )
    db.execute(insert(recipients).from_select([*values, *columns], chosen))
    copied = select(func.count()).select_from(recipients).where(recipients.c.campaign == correction)
    return db.execute(copied).scalar_one(), [each for each in found if each is not None]


def too_old_to_delete(db: Connection, corrected: int, numbers: Sequence[int], deletable_ms: int) -> set[int]:
    """Return those of the recipients whose message was sent too long ago."""
    chosen = (recipients.c.campaign == corrected, recipients.c.number.in_(numbers), _too_old(deletable_ms))
    return set(db.execute(select(recipients.c.number).where(*chosen)).scalars())


def _deleted(deletions: Sequence[int]) -> Any:
    deleted = recipients.alias()
    chosen = (deleted.c.campaign.in_(deletions), deleted.c.state == RecipientState.SENT)
    return select(deleted.c.number).where(*chosen)


def _too_old(deletable_ms: int) -> ColumnElement[bool]:
    private = not_(or_(recipients.c.chat.like("-%"), recipients.c.chat.like("@%")))
    return and_(private, recipients.c.ended_ms < deletable_ms)


def _counted(db: Connection, why: str, chosen: ColumnElement[bool]) -> UncorrectableMessages | None:
    number, first = db.execute(select(func.count(), func.min(recipients.c.number)).where(chosen)).one()
    if not number:
        return None
    chat = db.execute(select(recipients.c.chat).where(chosen, recipients.c.number == first)).scalar_one()
    return UncorrectableMessages(why, number, first, chat)
