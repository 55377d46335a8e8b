"""What the database keeps of a campaign and of its recipients, as values. Times are Unix time in milliseconds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Row

from floodgate.producer.campaigns.definition import DELETES, Content, Definition, parse_definition
from floodgate.producer.campaigns.states import CampaignState, RecipientState


@dataclass(frozen=True, slots=True)
class Campaign:
    """A campaign as it is kept. Times are Unix time in milliseconds."""

    id: int
    name: str
    bot: str
    state: CampaignState
    reason: str | None
    definition: Definition
    version: int
    fingerprint: str | None
    created_ms: int
    started_ms: int | None
    ended_ms: int | None
    corrects: int | None = None
    """The id of the campaign whose messages this one edits or deletes."""

    @property
    def started(self) -> datetime:
        """When it was started; 1970 if it was not."""
        return datetime.fromtimestamp((self.started_ms or 0) / 1000, UTC)

    @property
    def deletes(self) -> bool:
        """Whether it deletes the messages of another."""
        return self.corrects is not None and self.definition.contents[0].method == DELETES


@dataclass(frozen=True, slots=True)
class Recipient:
    """A recipient of a campaign. ``fields`` are those of the audience, without the chat."""

    number: int
    chat: str
    fields: Mapping[str, Any]
    variant: int
    state: RecipientState
    attempt: int
    message_id: int | None
    error: str | None
    released_ms: int | None
    ended_ms: int | None
    version: int | None = None
    """Of the definition by which the latest job was made."""

    def as_json(self) -> dict[str, object]:
        """Return what became of the recipient, as JSON values."""
        return {
            "chat": self.chat,
            "state": self.state.name.lower(),
            "variant": self.variant,
            "version": self.version,
            "message_id": self.message_id,
            "error": self.error,
            "released_ms": self.released_ms,
            "ended_ms": self.ended_ms,
        }

    def address(self, content: Content) -> dict[str, Any]:
        """Return the parameters that name the chat, and the message if there is one to be corrected."""
        return {"chat_id": self.chat} | ({"message_id": self.message_id} if content.is_correction else {})


@dataclass(frozen=True, slots=True)
class RecipientOutcome:
    """How the job of a recipient's ``attempt`` ended."""

    number: int
    attempt: int
    state: RecipientState
    """WAITING: it was taken back before its call."""
    message_id: int | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class RefusedRows:
    """The rows of an import that were not taken for one reason. ``line`` and ``sample`` are those of the first."""

    why: str
    number: int
    line: int
    sample: str


def read_campaign(row: Row[Any]) -> Campaign:
    """Return the campaign of a row of ``campaigns``."""
    return Campaign(
        id=row.id,
        name=row.name,
        bot=row.bot,
        state=CampaignState(row.state),
        reason=row.reason,
        definition=parse_definition(json.loads(row.definition), f"The campaign {row.name!r}"),
        version=row.version,
        fingerprint=row.fingerprint,
        created_ms=row.created_ms,
        started_ms=row.started_ms,
        ended_ms=row.ended_ms,
        corrects=row.corrects,
    )


def read_recipient(row: Row[Any]) -> Recipient:
    """Return the recipient of a row of ``campaign_recipients``."""
    return Recipient(
        number=row.number,
        chat=row.chat,
        fields=json.loads(row.fields) if row.fields else {},
        variant=row.variant,
        state=RecipientState(row.state),
        attempt=row.attempt,
        message_id=row.message_id,
        error=row.error,
        released_ms=row.released_ms,
        ended_ms=row.ended_ms,
        version=row.version,
    )
