"""What the wire said to one Bot API call: accepted, refused, or nothing that can be relied on.

Answers are facts, outcomes are decisions: :mod:`floodgate.actors.classify` makes the second of the first. This module
knows the two shapes in which a "no" arrives, a body in Telegram's form and an exception of python-telegram-bot's.
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
# Nobody waits longer than this on one word of Telegram's; a pause still in force is told again at the next call.
MAX_RETRY_AFTER: Final = timedelta(days=1)
# An exception chain of ours has two links; the bound is for chains that others made into a ring.
_MAX_CHAIN: Final = 16
_NOT_SENT_CAUSES: Final = (NotSentError, ConnectionRefusedError, gaierror, ssl.SSLCertVerificationError)


@dataclass(frozen=True, slots=True)
class Accepted:
    """Telegram did it. ``result`` is its own JSON value."""

    result: Any


@dataclass(frozen=True, slots=True)
class Refusal:
    """An HTTP answer that says no."""

    status: int
    description: str
    retry_after: timedelta | None = None
    migrate_to: str | None = None
    """Chat key of the supergroup that the chat became."""
    from_bot_api: bool = True
    """False when the body is not the Bot API's: something on the way answered, often in HTML."""


@dataclass(frozen=True, slots=True)
class Break:
    """No answer, or one that cannot be read. ``surely_not_sent``: the call never reached the Bot API."""

    reason: str
    surely_not_sent: bool
    ours: bool = False
    """The fault lies on this side: the spool is away, the worker stops. It says nothing of Telegram."""


Answer = Accepted | Refusal | Break


class BotApiRefusalError(TelegramError):
    """A refusal on its way through python-telegram-bot, whose own errors drop the code and the parameters."""

    __slots__ = ("refusal",)

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.description)
        self.refusal = refusal


def is_silence(answer: Answer) -> bool:
    """Whether Telegram did not answer: nothing came back, or a server on the way failed. Several chats' worth of it is
    an outage."""
    match answer:
        case Break():
            return not answer.ours
        case Refusal():
            return answer.status >= 500
        case _:
            return False


def read_refusal(status: int, body: bytes) -> Refusal:
    """The refusal in an answer that is not 2xx. Total: any bytes give one."""
    fields = read_json(body)
    if not isinstance(fields, dict) or fields.get("ok") is not False:
        return Refusal(status, _phrase(status), from_bot_api=False)
    return refusal_from_fields(status, fields)


def read_json(body: bytes) -> object:
    """The JSON value in a body, or None when it is none."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def refusal_from_fields(status: int, fields: dict[str, Any]) -> Refusal:
    """The refusal in Telegram's own error object. A field of the wrong type counts as absent."""
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
    """What an exception out of python-telegram-bot says. Total.

    The order matters: ``BadRequest`` and ``TimedOut`` are both ``NetworkError``, and only the first is an answer.
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
    """A ``retry_after`` (seconds, or the timedelta of later python-telegram-bot versions), at most a day."""
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:  # NaN is not >= 0 either
        return None
    return timedelta(seconds=min(value, MAX_RETRY_AFTER.total_seconds()))


def _break_of(error: BaseException) -> Break:
    """The first cause that knows where the call broke speaks; a chain without one may have been sent."""
    for cause in _causes(error):
        if isinstance(cause, _NOT_SENT_CAUSES):
            return Break(_wording(cause), surely_not_sent=True)
        if isinstance(cause, CutOffError):
            return Break(_wording(cause), surely_not_sent=False)
    return Break(_wording(error), surely_not_sent=False)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it was raised *from*. Its context is not followed: that may be another call's failure."""
    cause: BaseException | None = error
    for _ in range(_MAX_CHAIN):
        if cause is None:
            return
        yield cause
        cause = cause.__cause__


def _wording(error: BaseException) -> str:
    """Ours are worded to be read and hold no URL. Of others only the name is sure to hold no token."""
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
