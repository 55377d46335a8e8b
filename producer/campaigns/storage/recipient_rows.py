"""Writes the rows of recipients, and the counts of them by state."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection, bindparam, update
from sqlalchemy.dialects import postgresql, sqlite

from floodgate.producer.campaigns.audience.rows import Candidate
from floodgate.producer.campaigns.definition import Definition
from floodgate.producer.campaigns.states import RecipientState
from floodgate.producer.campaigns.storage import clock
from floodgate.producer.campaigns.storage.records import Campaign, RecipientOutcome
from floodgate.producer.campaigns.storage.tables import counts, recipients

HELD_OUT_VARIANT: Final = -1


def new_recipient(campaign: Campaign, number: int, candidate: Candidate, zone: int) -> dict[str, Any]:
    """Return the row of a new recipient."""
    variant = _variant(campaign.definition, candidate.chat)
    return {
        "campaign": campaign.id,
        "number": number,
        "chat": candidate.chat,
        "fields": candidate.fields,
        "variant": variant,
        "zone": zone,
        "state": RecipientState.HELD_OUT if variant == HELD_OUT_VARIANT else RecipientState.WAITING,
    }


def _variant(definition: Definition, chat: str) -> int:
    """Choose a chat's variant by a hash, so that another import chooses the same."""
    if not definition.variants and not definition.hold_out:
        return 0
    digest = hashlib.blake2b(f"{definition.name}\0{chat}".encode(), digest_size=8).digest()
    place = int.from_bytes(digest) / 2**64
    if place < definition.hold_out:
        return HELD_OUT_VARIANT
    place = (place - definition.hold_out) / (1 - definition.hold_out)
    for number, variant in enumerate(definition.variants):
        if place < variant.share:
            return number
        place -= variant.share
    return max(0, len(definition.variants) - 1)


def settled(outcome: RecipientOutcome, message_id: int | None) -> dict[str, Any]:
    """Return the columns that an outcome changes. ``message_id`` is that of the message that was to be corrected."""
    taken_back = outcome.state is RecipientState.WAITING
    return {
        "at": outcome.number,
        "state": outcome.state,
        "attempt": outcome.attempt + taken_back,  # the id of the job that was taken back is spent
        "message_id": outcome.message_id or message_id,
        "error": outcome.error,
        "ended_ms": None if taken_back else clock.now_ms(),
    }


def update_recipients(db: Connection, campaign: Campaign, values: list[dict[str, Any]]) -> None:
    """Update the recipients with the numbers ``at``."""
    if values:
        row = (recipients.c.campaign == campaign.id, recipients.c.number == bindparam("at"))
        columns: dict[str, Any] = {name: bindparam(name) for name in values[0] if name != "at"}
        db.execute(update(recipients).where(*row).values(columns), values)


def mark(db: Connection, campaign: Campaign, numbers: Sequence[int], **values: Any) -> None:
    """Give recipients the same values."""
    rows = (recipients.c.campaign == campaign.id, recipients.c.number.in_(numbers))
    db.execute(update(recipients).where(*rows).values(values))


def count_states(db: Connection, campaign: int, changes: Mapping[RecipientState, int]) -> None:
    """Add to the counts by state."""
    for state, change in sorted(changes.items()):
        if change:
            statement = _dialect(db).insert(counts).values(campaign=campaign, state=state, number=change)
            db.execute(
                statement.on_conflict_do_update(
                    index_elements=["campaign", "state"], set_={"number": counts.c.number + statement.excluded.number}
                )
            )


def insert_new(db: Connection, table: Any, values: list[dict[str, Any]]) -> None:
    """Insert rows, except those that exist."""
    db.execute(_dialect(db).insert(table).on_conflict_do_nothing(), values)


def _dialect(db: Connection) -> Any:
    return postgresql if db.dialect.name == "postgresql" else sqlite
