"""The answer to one Bot API call: accepted, refused, or broken off without a usable answer.

Answers are facts, outcomes are decisions: :mod:`floodgate.actors.classify` turns answers into outcomes. This module
reads the two forms in which a refusal arrives: a body in Telegram's format, and an exception of python-telegram-bot.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from socket import gaierror
from typing import Any, Final

from telegram.error import (
    BadRequest,
    ChatMigrated,
    Conflict,
    EndPointNotFound,
    Forbidden,
    InvalidToken,
    RetryAfter,
    TelegramError,
)

from floodgate.broker.errors import CutOffError, InvalidParamsError, NotSentError
from floodgate.broker.messages.chats import chat_key

MAX_DESCRIPTION: Final = 500
# The longest wait that one answer can impose. If Telegram's pause lasts longer, the next call is told so again.
MAX_RETRY_AFTER: Final = timedelta(days=1)
# Floodgate's own exception chains have two links; the bound is for other code's circular chains.
_MAX_CHAIN: Final = 16
_NOT_SENT_CAUSES: Final = (NotSentError, ConnectionRefusedError, gaierror, ssl.SSLCertVerificationError)


@dataclass(frozen=True, slots=True)
class Accepted:
    """Telegram accepted the call. ``result`` is its own JSON value."""

    result: Any


@dataclass(frozen=True, slots=True)
class Refusal:
    """An HTTP answer that refuses the call."""

    status: int
    description: str
    retry_after: timedelta | None = None
    migrate_to: str | None = None
    """Chat key of the supergroup that the chat was upgraded to."""
    from_bot_api: bool = True
    """False if the body is not the Bot API's: an intermediary answered, often in HTML."""


@dataclass(frozen=True, slots=True)
class Break:
    """No answer, or an unreadable one. ``surely_not_sent``: the call certainly never reached the Bot API."""

    reason: str
    surely_not_sent: bool
    ours: bool = False
    """The cause is on this side (the spool is unavailable, the worker stops) and says nothing about Telegram."""


Answer = Accepted | Refusal | Break


class BotApiRefusalError(TelegramError):
    """Carries a refusal through python-telegram-bot, whose own errors drop the code and the parameters."""

    __slots__ = ("refusal",)

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.description)
        self.refusal = refusal


def is_silence(answer: Answer) -> bool:
    """Whether Telegram did not answer: nothing came back, or a server failed (5xx). If this happens to several chats,
    it is an outage."""
    match answer:
        case Break():
            return not answer.ours
        case Refusal():
            return answer.status >= 500
        case _:
            return False


def read_refusal(status: int, body: bytes) -> Refusal:
    """Read the refusal from an answer that is not 2xx. Accepts any body."""
    fields = read_json(body)
    if not isinstance(fields, dict) or fields.get("ok") is not False:
        return Refusal(status, _phrase(status), from_bot_api=False)
    return refusal_from_fields(status, fields)


def read_json(body: bytes) -> object:
    """Decode a JSON body; None if it is not valid JSON."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def refusal_from_fields(status: int, fields: dict[str, Any]) -> Refusal:
    """Read the refusal from Telegram's own error object. A field of the wrong type is ignored."""
    code, description, parameters = (fields.get(name) for name in ("error_code", "description", "parameters"))
    if not isinstance(parameters, dict):
        parameters = {}
    return Refusal(
        status=code if type(code) is int and 100 <= code <= 999 else status,
        description=description[:MAX_DESCRIPTION] if isinstance(description, str) and description else _phrase(status),
        retry_after=seconds_to_wait(parameters.get("retry_after")),
        migrate_to=_chat_key_or_none(parameters.get("migrate_to_chat_id")),
    )


def answer_to_error(error: BaseException) -> Refusal | Break:
    """Convert an exception from python-telegram-bot. Accepts any exception.

    The order matters: ``BadRequest`` and ``TimedOut`` are both ``NetworkError``, but only the first is an answer.
    """
    description = str(error)[:MAX_DESCRIPTION]
    match error:
        case BotApiRefusalError():
            return error.refusal
        case RetryAfter():
            return Refusal(429, description, retry_after=seconds_to_wait(error.retry_after))
        case ChatMigrated():
            return Refusal(400, description, migrate_to=_chat_key_or_none(error.new_chat_id))
        case BadRequest():
            return Refusal(400, description)
        case Forbidden():
            return Refusal(403, description)
        case EndPointNotFound():
            return Refusal(404, description)
        case InvalidToken():
            return Refusal(401, description)
        case Conflict():
            return Refusal(409, description)
        case _:
            return _break_of(error)


def seconds_to_wait(value: object) -> timedelta | None:
    """Convert a ``retry_after``: seconds, or a timedelta in later versions of python-telegram-bot. At most a day; None
    if it is neither or is negative."""
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:  # NaN is not >= 0 either
        return None
    return timedelta(seconds=min(value, MAX_RETRY_AFTER.total_seconds()))


def _break_of(error: BaseException) -> Break:
    """Describe where a call broke, by the first cause in the chain that tells; without one, it may have been sent."""
    for cause in _causes(error):
        if isinstance(cause, _NOT_SENT_CAUSES):
            return Break(_wording(cause), surely_not_sent=True)
        if isinstance(cause, CutOffError):
            return Break(_wording(cause), surely_not_sent=False)
    return Break(_wording(error), surely_not_sent=False)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and its causes (``raise … from``). Contexts are skipped: they may belong to another call."""
    cause: BaseException | None = error
    for _ in range(_MAX_CHAIN):
        if cause is None:
            return
        yield cause
        cause = cause.__cause__


def _wording(error: BaseException) -> str:
    """The text of Floodgate's own errors, which never contains a URL. Of others only the type is sure to be free of
    tokens."""
    return str(error)[:MAX_DESCRIPTION] if isinstance(error, NotSentError | CutOffError) else type(error).__name__


def _chat_key_or_none(chat_id: object) -> str | None:
    try:
        return chat_key(chat_id)
    except InvalidParamsError:
        return None


def _phrase(status: int) -> str:
    try:
        return f"HTTP {status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"HTTP {status}"
