"""What a job's record in the ledger means for its recipient, and the names of recipients' jobs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

from floodgate.broker.admission.contract import CANCELLED, Record, Standing
from floodgate.broker.messages.dead_letters import CHAT_UNREACHABLE, REASON_UNCERTAIN
from floodgate.producer.campaigns.states import CampaignState, RecipientState
from floodgate.producer.campaigns.storage.records import Campaign, RecipientOutcome

PREFIX: Final = "campaign-"
MAX_ERROR: Final = 200

_STATES: Final[Mapping[str, RecipientState]] = {
    CHAT_UNREACHABLE: RecipientState.UNREACHABLE,
    "chat-not-found": RecipientState.UNREACHABLE,
    REASON_UNCERTAIN: RecipientState.UNCERTAIN,
}

# Telegram's answer if somebody else has deleted a message.
_GONE: Final = "message to delete not found"


def job_id(campaign: Campaign, number: int, attempt: int) -> str:
    """Return the id of a recipient's job: the same for the same attempt in every process, so it is sent once."""
    return f"{_prefix(campaign)}{number}-{attempt}"


def report_job_id(campaign: Campaign, key: str) -> str:
    """Return the id of a job that reports a campaign's progress: the same for the same key in every process."""
    return f"{_prefix(campaign)}report-{hashlib.blake2b(key.encode(), digest_size=8).hexdigest()}"


def read_job_id(campaign: Campaign, job: str) -> tuple[int, int] | None:
    """Return the recipient's number and the attempt of a job; None if it is not of this campaign."""
    prefix = _prefix(campaign)
    if not job.startswith(prefix):
        return None
    number, _, attempt = job.removeprefix(prefix).partition("-")
    return int(number), int(attempt)


def outcome_of(campaign: Campaign, job: str, record: Record) -> RecipientOutcome | None:
    """Return how a recipient ended, by its job's record; None if the job has not ended, or is not of this campaign."""
    found = read_job_id(campaign, job)
    if found is None:
        return None
    match record.standing:
        case Standing.SENT:
            return RecipientOutcome(*found, RecipientState.SENT, message_id(record.result), _why(None, record.error))
        case Standing.DEAD if record.reason == CANCELLED:
            back = RecipientState.CANCELLED if campaign.state is CampaignState.CANCELLED else RecipientState.WAITING
            return RecipientOutcome(*found, back)
        case Standing.DEAD:
            why = _why(record.reason, record.error)
            return RecipientOutcome(*found, _state(campaign, record.reason, why), None, why)
        case _:
            return None


def _state(campaign: Campaign, reason: str | None, why: str | None) -> RecipientState:
    if campaign.deletes and _GONE in (why or ""):
        return RecipientState.SENT
    return _STATES.get(reason or "", RecipientState.FAILED)


def _prefix(campaign: Campaign) -> str:
    """Two databases may have campaigns of one name."""
    digest = hashlib.blake2b(f"{campaign.name}\0{campaign.created_ms}".encode(), digest_size=6)
    return f"{PREFIX}{digest.hexdigest()}-"


def message_id(result: Any) -> int | None:
    """Return the id of the message, or of the first one, in Telegram's result."""
    first = result[0] if isinstance(result, list) and result else result
    found = first.get("message_id") if isinstance(first, dict) else None
    return found if isinstance(found, int) else None


def _why(reason: str | None, error: Mapping[str, Any] | None) -> str | None:
    description = (error or {}).get("description")
    text = ": ".join(str(part) for part in (reason, description) if part)
    return text[:MAX_ERROR] or None
