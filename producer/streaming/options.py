"""The options of a stream, and their checks."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from difflib import get_close_matches
from typing import Any, Final, Literal, TypedDict

from floodgate.broker.errors import InvalidParamsError
from floodgate.broker.messages.chats import ChatKind, chat_key, chat_kind
from floodgate.broker.messages.job import Priority
from floodgate.producer.ledger import seconds_of
from floodgate.producer.streaming.text import Formatting

# A power of two units of the delay ladder, so that a notice waits in one queue only.
INTERRUPTED_AFTER: Final = timedelta(seconds=32)
LONGEST_NOTE: Final = 200
_TEXT_LIMIT: Final = 4096


class StreamOptions(TypedDict, total=False):
    """Options of a stream. All are optional."""

    bot: str
    """Name of the configured bot that writes. Defaults to the client's own bot."""
    priority: Priority | Literal["interactive", "bulk"]
    """The priority of the first words and of the final text: `interactive` (default) or `bulk`. What is shown in
    between is always `bulk`, so that it delays no person's message."""
    campaign: str | None
    """A label by which to find related jobs later."""
    formatting: Formatting
    """How the text is written: `plain` (default), `markdown`, `HTML` or `MarkdownV2`."""
    drafts: bool
    """Whether a private chat may show drafts (`sendMessageDraft`) until the text is final. Defaults to True. Elsewhere,
    and if Telegram refuses drafts, a message is sent and edited."""
    on_error: str | None
    """Plain text to add, at most 200 characters, if the body of the `with` block raises an exception."""
    interrupted: str | None
    """Plain text to add, at most 200 characters, if the program ends, or is cut off, before the text does."""
    interrupted_after: timedelta | float
    """How long after the last sign of life a stream counts as interrupted. Defaults to 32 seconds, at least 4."""
    dedupe_key: str | None
    """Streams of one bot with the same key write the same messages: the second continues those of the first."""
    message_thread_id: int | None
    direct_messages_topic_id: int | None
    business_connection_id: str | None
    disable_notification: bool | None
    protect_content: bool | None
    message_effect_id: str | None
    """Of the first message."""
    reply_parameters: dict[str, Any] | None
    """Of the first message."""
    link_preview_options: dict[str, Any] | None
    reply_markup: dict[str, Any] | None
    """Buttons below the final text; of several messages, below the last."""


_NAMES: Final = frozenset(StreamOptions.__annotations__)
_PLACE: Final = ("message_thread_id", "direct_messages_topic_id", "business_connection_id")
_EVERY_SEND: Final = (*_PLACE, "disable_notification", "protect_content", "link_preview_options")
_FIRST_SEND: Final = ("reply_parameters", "message_effect_id")
_EVERY_EDIT: Final = ("business_connection_id", "link_preview_options")
_EVERY_DRAFT: Final = ("message_thread_id",)
_TYPING: Final = ("message_thread_id", "business_connection_id")
_PARAMETERS: Final = frozenset({*_EVERY_SEND, *_FIRST_SEND, "reply_markup"})
_FORMATTINGS: Final = ("plain", "markdown", "HTML", "MarkdownV2")


@dataclass(frozen=True, slots=True)
class StreamRequest:
    """A stream as its caller asked for it, checked."""

    chat_id: int | str
    chat: str
    """The chat's key."""
    priority: Priority
    formatting: Formatting
    drafts: bool
    on_error: str
    interrupted: str | None
    interrupted_after: timedelta
    bot: str | None
    campaign: str | None
    dedupe_key: str | None
    key: str
    """Distinguishes the stream from others. Derived from the dedupe key if there is one."""
    params: Mapping[str, Any]
    """Parameters of the Bot API."""

    @property
    def limit(self) -> int:
        """How many characters (UTF-16 code units) a message may have, so that a note still fits."""
        return _TEXT_LIMIT - 2 * max(len(self.on_error), len(self.interrupted or ""))

    def for_send(self, first: bool) -> dict[str, Any]:
        """Parameters of a new message."""
        return self._given(_EVERY_SEND + (_FIRST_SEND if first else ()))

    def for_edit(self) -> dict[str, Any]:
        """Parameters of an edit."""
        return self._given(_EVERY_EDIT)

    def for_draft(self) -> dict[str, Any]:
        """Parameters of a draft."""
        return self._given(_EVERY_DRAFT)

    def for_deletion(self, message_id: int) -> dict[str, Any]:
        """Parameters of a deletion."""
        if (business := self.params.get("business_connection_id")) is not None:
            return {"business_connection_id": business, "message_ids": [message_id]}
        return {"chat_id": self.chat_id, "message_id": message_id}

    def for_typing(self) -> dict[str, Any]:
        """Parameters of a chat action."""
        return self._given(_TYPING)

    def _given(self, names: tuple[str, ...]) -> dict[str, Any]:
        return {"chat_id": self.chat_id, **{name: self.params[name] for name in names if name in self.params}}


def stream_request(chat_id: int | str, given: Mapping[str, Any], bot: str) -> StreamRequest:
    """Check a stream's options.

    Args:
        bot: the bot of streams that name none.

    Raises:
        InvalidParamsError: an option is unknown or has a wrong value.
    """
    for name in given.keys() - _NAMES:
        raise InvalidParamsError(f"A stream has no option {name!r}.{_instead(name)}")
    options = {name: value for name, value in given.items() if value is not None}
    if (formatting := options.get("formatting", "plain")) not in _FORMATTINGS:
        raise InvalidParamsError(f"formatting is {formatting!r}: use {', '.join(_FORMATTINGS)}.")
    try:
        priority = Priority(options.get("priority", Priority.INTERACTIVE))
    except ValueError as error:
        raise InvalidParamsError(f"{error}.") from None
    chat = chat_key(chat_id)
    params: dict[str, Any] = {
        name: options[name] for name in (*_EVERY_SEND, *_FIRST_SEND, "reply_markup") if name in options
    }
    whose = options.get("bot") or bot
    return StreamRequest(
        chat_id=chat_id,
        chat=chat,
        priority=priority,
        formatting=formatting,
        drafts=bool(options.get("drafts", True)) and _takes_drafts(chat, params),
        on_error=_note("on_error", options) or "",
        interrupted=_note("interrupted", options),
        interrupted_after=_interrupted_after(options),
        bot=whose,
        campaign=options.get("campaign"),
        dedupe_key=options.get("dedupe_key"),
        key=_key_of(whose, chat, options.get("dedupe_key")),
        params=params,
    )


def _takes_drafts(chat: str, params: Mapping[str, Any]) -> bool:
    elsewhere = ("business_connection_id", "direct_messages_topic_id")
    return chat_kind(chat) is ChatKind.USER and not any(name in params for name in elsewhere)


def _note(name: str, options: Mapping[str, Any]) -> str | None:
    note = options.get(name)
    if note is not None and (not isinstance(note, str) or len(note) > LONGEST_NOTE):
        raise InvalidParamsError(f"{name} must be text of at most {LONGEST_NOTE} characters.")
    return note


def _interrupted_after(options: Mapping[str, Any]) -> timedelta:
    after = options.get("interrupted_after", INTERRUPTED_AFTER)
    if isinstance(after, bool) or not isinstance(after, timedelta | int | float):
        raise InvalidParamsError("interrupted_after must be a timedelta or a number of seconds.")
    if not 4 <= (seconds := seconds_of(after)) <= 3600:
        raise InvalidParamsError("interrupted_after must be between 4 seconds and an hour.")
    return timedelta(seconds=seconds)


def _key_of(bot: str, chat: str, dedupe_key: str | None) -> str:
    if dedupe_key is None:
        return secrets.token_hex(8)
    if not isinstance(dedupe_key, str) or not 1 <= len(dedupe_key) <= 200:
        raise InvalidParamsError("dedupe_key must be text of 1 to 200 characters.")
    return hashlib.blake2b(f"{bot}\x00{chat}\x00{dedupe_key}".encode(), digest_size=8).hexdigest()


def _instead(name: str) -> str:
    if name in ("parse_mode", "entities"):
        return " Use formatting."
    near = get_close_matches(name, _NAMES, n=1)
    return f" Did you mean {near[0]!r}?" if near else ""
