"""Recognises updates that may be a recipient's response to a campaign, without looking at the database."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

from floodgate.producer.campaigns.content.recipient_codes import RecipientCode, read_start_payload

_START: Final = re.compile(r"/start(?:@\w+)?(?:\s+(\S+))?\s*")
_NAME: Final = re.compile(r"[A-Za-z0-9_]{1,32}")
# A bot's status in a chat that has blocked or removed it.
_OUT: Final = ("kicked", "left")


class ResponseKind(IntEnum):
    """What a recipient did. The numbers are those in the database; they must not change."""

    PRESS = 1  # a button below the message
    START = 2  # the bot was started, perhaps by the message's deep link
    REPLY = 3  # to the message
    BLOCK = 4  # the bot was blocked, or removed from the group
    UNSUBSCRIBE = 5  # the unsubscribe button


@dataclass(frozen=True, slots=True)
class Response:
    """A possible response. ``chats`` are the keys under which a campaign may know the chat."""

    bot: str
    kind: ResponseKind
    chats: tuple[str, ...]
    at_ms: int
    message_id: int | None = None
    """The message that was pressed or replied to."""
    code: RecipientCode | None = None
    """The recipient whose deep link was followed."""


def read_response(bot: str, body: Mapping[str, Any], at_ms: int) -> Response | None:
    """Return the response that an update may be; None for all updates that certainly are none."""
    match body:
        case {"message": {"text": str(text), "chat": _} as message} if (start := _START.fullmatch(text)) is not None:
            code = read_start_payload(start[1] or "")
            return Response(bot, ResponseKind.START, chats_of(message), at_ms, code=code)
        case {"message": {"reply_to_message": {"message_id": int(replied_to)}} as message}:
            return Response(bot, ResponseKind.REPLY, chats_of(message), at_ms, replied_to)
        case {"callback_query": {"message": {"message_id": int(pressed)} as message}}:
            return Response(bot, ResponseKind.PRESS, chats_of(message), at_ms, pressed)
        case {"my_chat_member": {"new_chat_member": {"status": status}} as change} if status in _OUT:
            return Response(bot, ResponseKind.BLOCK, chats_of(change), at_ms)
        case _:
            return None


def chats_of(content: object) -> tuple[str, ...]:
    """Return the keys under which a campaign may know the chat of a message or of another content of an update: its id,
    and its @name if it has one."""
    match content:
        case {"chat": {"id": int(chat), "username": str(name)}} if _NAME.fullmatch(name):
            return str(chat), f"@{name.lower()}"
        case {"chat": {"id": int(chat)}}:
            return (str(chat),)
        case _:
            return ()
