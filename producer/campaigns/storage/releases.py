"""Releases the recipients of a campaign who may get their message now."""

from __future__ import annotations

from collections.abc import Sequence, Set
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import Connection, Row, select

from floodgate.producer.campaigns.states import RecipientState
from floodgate.producer.campaigns.storage import clock
from floodgate.producer.campaigns.storage.chat_lookup import select_by_chat
from floodgate.producer.campaigns.storage.exclusions import UNSUBSCRIBED
from floodgate.producer.campaigns.storage.recipient_rows import count_states, mark
from floodgate.producer.campaigns.storage.records import Campaign
from floodgate.producer.campaigns.storage.rest import put_off_resting
from floodgate.producer.campaigns.storage.sent_messages import DELETABLE, TOO_OLD, too_old_to_delete
from floodgate.producer.campaigns.storage.tables import recipients, unsubscribed

# A release looks at this many recipients at once, if chats rest, and so often.
PUT_OFF: Final = 500
ROUNDS: Final = 20


def release_zone(db: Connection, campaign: Campaign, zone: int, most: int) -> list[Row[Any]]:
    """Release up to ``most`` waiting recipients of a time zone."""
    rest, now, released = rest_of(campaign), clock.now_ms(), list[Row[Any]]()
    waiting = (
        recipients.c.campaign == campaign.id,
        recipients.c.state == RecipientState.WAITING,
        recipients.c.zone == zone,
        recipients.c.due_ms <= now,
    )
    statement = select(recipients).where(*waiting).order_by(recipients.c.due_ms, recipients.c.number)
    for _ in range(ROUNDS):
        wanted = most - len(released)
        limit = max(wanted, PUT_OFF) if rest else wanted
        found = db.execute(statement.limit(limit)).all()
        chosen = (put_off_resting(db, campaign.bot, rest, found, now) if rest else found)[:wanted]
        if campaign.corrects is None:
            chosen = _without_unsubscribed(db, campaign, chosen)
        elif campaign.deletes:
            chosen = _young_enough(db, campaign, chosen)
        values = {"state": RecipientState.RELEASED, "released_ms": now, "version": campaign.version}
        mark(db, campaign, [row.number for row in chosen], **values)
        released.extend(chosen)
        if len(found) < limit or len(released) == most:
            break
    return released


def _without_unsubscribed(db: Connection, campaign: Campaign, rows: Sequence[Row[Any]]) -> Sequence[Row[Any]]:
    """Skip those who have unsubscribed. Return the others."""
    statement = select(unsubscribed.c.chat).where(unsubscribed.c.bot == campaign.bot)
    gone = {row.chat for row in select_by_chat(db, statement, [row.chat for row in rows])}
    return _without(db, campaign, rows, {row.number for row in rows if row.chat in gone}, UNSUBSCRIBED)


def _young_enough(db: Connection, campaign: Campaign, rows: Sequence[Row[Any]]) -> Sequence[Row[Any]]:
    """Skip those whose message has become too old to be deleted. Return the others."""
    assert campaign.corrects is not None
    old = too_old_to_delete(db, campaign.corrects, [row.number for row in rows], deletable_ms())
    return _without(db, campaign, rows, old, TOO_OLD)


def _without(
    db: Connection, campaign: Campaign, rows: Sequence[Row[Any]], skipped: Set[int], why: str
) -> Sequence[Row[Any]]:
    """Mark waiting recipients, given by their numbers, as skipped. Return the others."""
    if not skipped:
        return rows
    mark(db, campaign, list(skipped), state=RecipientState.SKIPPED, error=why, ended_ms=clock.now_ms())
    count_states(db, campaign.id, {RecipientState.WAITING: -len(skipped), RecipientState.SKIPPED: len(skipped)})
    return [row for row in rows if row.number not in skipped]


def deletable_ms() -> int:
    """Return the time before which messages are too old to be deleted."""
    return clock.now_ms() - DELETABLE // timedelta(milliseconds=1)


def rest_of(campaign: Campaign) -> timedelta | None:
    """Return how long chats rest before they get a campaign. A correction is no further message."""
    return campaign.definition.rest if campaign.corrects is None else None
