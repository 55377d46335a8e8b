"""The outcome of one Bot API call, as the pipeline sees it.

    Sent         Telegram accepted the call; its result is kept
    NothingToDo  there was nothing to do, as in "message is not modified"
    Retry        make the call again later; it cannot take effect twice
    Uncertain    the call may have taken effect; the job's ``on_uncertain`` decides
    Paused       429: no calls for this chat until the pause ends; no attempt is used up
    Migrated     the chat has a new id; send there now
    Dead         the call will never succeed; dead-letter the job
    BotRefused   the bot's token is refused; pause the bot, and keep its jobs

``Sent`` and ``Dead`` are the ledger's own settlements (:mod:`floodgate.broker.admission.contract`). The glossary has
the table of outcomes, settlements and standings. :mod:`floodgate.actors.classify` makes outcomes, and
:mod:`floodgate.actors.backoff` turns ``Retry`` and ``Uncertain`` into settlements. Callers match all outcomes and end
with ``assert_never``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from floodgate.broker.admission.contract import Dead, Sent


class FailureReason(StrEnum):
    """Why a job ended without being sent. The values are stored in dead letters and counts: never rename one."""

    CHAT_UNREACHABLE = "chat-unreachable"  # blocked, kicked, deactivated: applies to every message to this chat
    CHAT_NOT_FOUND = "chat-not-found"
    RIGHTS = "rights"
    CONTENT = "content"
    LATE = "late"  # a query that has expired on Telegram's side
    METHOD = "method"  # this Bot API server does not know the method
    REFUSED = "refused"  # with a code that no table lists
    EXHAUSTED = "exhausted"  # the bound on attempts or age was reached
    UNCERTAIN = "uncertain"  # it may have been sent, and the job asked not to risk it twice
    EXPIRED = "expired"  # the job's own `expires` passed


@dataclass(frozen=True, slots=True)
class NothingToDo:
    """Nothing had to be done. The job ends as sent, with the result ``True``."""

    description: str
    code: int | None = None
    """Telegram's error code, for callers that want its own answer; None if the job's own earlier call had done it."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Make the call again later. ``surely_not_sent``: it never reached Telegram, so its permit is returned."""

    reason: str
    surely_not_sent: bool
    at_most: int | None = None
    """The most calls worth making after an error of this kind, if fewer than the setting allows."""


@dataclass(frozen=True, slots=True)
class Uncertain:
    """The call may have taken effect, fully or partly, and another call may repeat the effect."""

    reason: str
    retry_after: timedelta | None = None
    """The pause that Telegram asked for in the same answer: the chat must wait, whatever happens to the job."""
    partly: bool = False
    """It almost certainly took effect in part, so it is never retried automatically, whatever ``on_uncertain`` says."""


@dataclass(frozen=True, slots=True)
class Paused:
    """Telegram's flood control. The call had no effect."""

    retry_after: timedelta
    description: str


@dataclass(frozen=True, slots=True)
class Migrated:
    """The group became a supergroup. The call had no effect. ``new_chat`` is a chat key."""

    new_chat: str


@dataclass(frozen=True, slots=True)
class BotRefused:
    """The bot itself is refused: a revoked or wrong token, or a wrong API root. The call had no effect."""

    description: str


Outcome = Sent | NothingToDo | Retry | Uncertain | Paused | Migrated | Dead | BotRefused


_NAMES: Final[Mapping[type[Outcome], str]] = MappingProxyType(
    {
        Sent: "sent",
        NothingToDo: "nothing-to-do",
        Retry: "retry",
        Uncertain: "uncertain",
        Paused: "paused",
        Migrated: "migrated",
        Dead: "dead",
        BotRefused: "bot-refused",
    }
)


def name_of(outcome: Outcome) -> str:
    """Return an outcome's name in metrics and traces."""
    return _NAMES[type(outcome)]


def failure_in(outcome: Outcome) -> tuple[str, str] | None:
    """Return a keyword and a description of what went wrong; None if nothing did."""
    match outcome:
        case Dead(reason=reason, description=description):
            return reason, description
        case Retry(reason=description) | Uncertain(reason=description) | Paused(description=description):
            return name_of(outcome), description
        case BotRefused(description=description):
            return name_of(outcome), description
        case _:
            return None


def dead(reason: FailureReason, description: str, code: int | None = None) -> Dead:
    """Make a permanent failure. ``description`` is Telegram's own wording and ``code`` its error code; the code is None
    if Floodgate gives up."""
    return Dead(reason, error_of(code, description), description=description)


def error_of(code: int | None, description: str) -> dict[str, Any] | None:
    """Make Telegram's error object for callers; None if the error is not Telegram's."""
    return None if code is None else {"error_code": code, "description": description}
