"""The outcome of one Bot API call, as the pipeline sees it.

    Sent         Telegram accepted the call; its result is kept
    NothingToDo  there was nothing to do, as in "message is not modified"
    Retry        make the call again later; doing so cannot do anything twice
    Uncertain    the call may have acted; the job's ``on_uncertain`` decides
    Paused       429: nobody calls for this chat until then; no attempt is spent
    Migrated     the chat has a new id; send there now
    Dead         it will never succeed; dead-letter it
    BotRefused   the bot's token is refused; pause the bot, its jobs stay

``Sent`` and ``Dead`` are the ledger's own settlements (:mod:`floodgate.broker.admission.contract`). The glossary has
the table of outcomes, settlements and standings. :mod:`floodgate.actors.classify` makes outcomes, and
:mod:`floodgate.actors.backoff` turns ``Retry`` and ``Uncertain`` into a settlement. Callers match them all and close
with ``assert_never``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any

from floodgate.broker.admission.contract import Dead, Sent


class FailureReason(StrEnum):
    """Why a job ended without being sent. The words are in dead letters and counts: never rename one."""

    CHAT_UNREACHABLE = "chat-unreachable"  # blocked, kicked, deactivated: so for every message to this chat
    CHAT_NOT_FOUND = "chat-not-found"
    RIGHTS = "rights"
    CONTENT = "content"
    LATE = "late"  # a query that has expired on Telegram's side
    METHOD = "method"  # this Bot API server does not know the method
    REFUSED = "refused"  # with a code that is in no list
    EXHAUSTED = "exhausted"  # the bound on attempts or age was reached
    UNCERTAIN = "uncertain"  # it may have been sent, and the job asked not to risk it twice
    EXPIRED = "expired"  # the job's own `expires` passed


@dataclass(frozen=True, slots=True)
class NothingToDo:
    """Nothing had to be done. The job ends as sent with the result ``True``."""

    description: str
    code: int | None = None
    """Telegram's error code, for callers who want its own answer; None when it was the job's own earlier call that had
    done it."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Make the call again later. ``surely_not_sent``: it never reached Telegram, so its budget is given back."""

    reason: str
    surely_not_sent: bool
    at_most: int | None = None
    """Calls worth making for a fault of this kind, where that is fewer than the setting's."""


@dataclass(frozen=True, slots=True)
class Uncertain:
    """The call may have acted, wholly or in part, and making it again may do so twice."""

    reason: str
    retry_after: timedelta | None = None
    """Telegram asked for a pause in the same breath: the chat must wait whatever becomes of the job."""
    partly: bool = False
    """It did act in part, or as good as surely so: never made again by itself, whatever the job's ``on_uncertain``."""


@dataclass(frozen=True, slots=True)
class Paused:
    """Flood control. The call did not act."""

    retry_after: timedelta
    description: str


@dataclass(frozen=True, slots=True)
class Migrated:
    """The group became a supergroup. The call did not act. ``new_chat`` is a chat key."""

    new_chat: str


@dataclass(frozen=True, slots=True)
class BotRefused:
    """The bot itself is refused: revoked or wrong token, or a wrong API root. The call did not act."""

    description: str


Outcome = Sent | NothingToDo | Retry | Uncertain | Paused | Migrated | Dead | BotRefused


def dead(reason: FailureReason, description: str, code: int | None = None) -> Dead:
    """A permanent refusal. ``description`` is Telegram's own wording, and ``code`` its error code; None when it is we
    who give up."""
    return Dead(reason, error_of(code, description), description=description)


def error_of(code: int | None, description: str) -> dict[str, Any] | None:
    """Telegram's error as callers get it; None if it is not Telegram's."""
    return None if code is None else {"error_code": code, "description": description}
