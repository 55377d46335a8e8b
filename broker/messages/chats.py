"""Chat keys: the normalised name of the chat a job is charged to.

Numeric ids are written in decimal; ``@Name`` is lower-cased; an inline message is its own "chat". Sources: the
Bot API's "Available types" (ids have at most 52 significant bits) and the Bot API server (supergroups and channels
start at -1000000000001 and cannot be told apart by their id).
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final

from floodgate.broker.errors import InvalidParamsError

_USERNAME: Final = re.compile(r"@[A-Za-z][A-Za-z0-9_]{2,31}")
_SIGNIFICANT_BITS: Final = 52


class ChatKind(StrEnum):
    """The kind of chat that a chat key denotes, which determines its limits."""

    USER = "user"
    GROUP = "group"  # basic group, supergroup or channel: an id does not tell which, so the strictest limit counts
    NAME = "name"  # @name: a public group or channel until it is resolved to its id
    INLINE = "inline"  # a message sent via an inline query: no chat limit applies
    NONE = "none"  # the method names no chat


def chat_key(chat_id: object) -> str:
    """Return the chat key of a ``chat_id`` parameter: an int, its decimal text, or ``@name``.

    Raises:
        InvalidParamsError: it is none of these, is 0, or has more than 52 significant bits.
    """
    if isinstance(chat_id, bool) or not isinstance(chat_id, int | str):
        raise InvalidParamsError(f"chat_id must be a number or '@name', not {type(chat_id).__name__}.")
    if isinstance(chat_id, str):
        text = chat_id.strip()
        if _USERNAME.fullmatch(text):
            return text.lower()
        try:
            chat_id = int(text)
        except ValueError:
            raise InvalidParamsError(f"chat_id {text[:40]!r} is neither a number nor '@name'.") from None
    if chat_id == 0 or abs(chat_id).bit_length() > _SIGNIFICANT_BITS:
        raise InvalidParamsError(f"chat_id {chat_id} is not a Telegram chat: ids are not 0 and have at most 52 bits.")
    return str(chat_id)


def chat_kind(key: str | None) -> ChatKind:
    """Return the kind of chat that a chat key denotes. Defined for all keys that :func:`chat_key` returns."""
    if not key:
        return ChatKind.NONE
    if key.startswith("inline:"):
        return ChatKind.INLINE
    if key.startswith("@"):
        return ChatKind.NAME
    return ChatKind.GROUP if key.startswith("-") else ChatKind.USER
