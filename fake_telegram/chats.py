"""The chats that bots can reach: every id is a chat, and its range determines its type, as in Telegram.

Users are above 0, basic groups between -1 and -999999999999, supergroups and channels from -1000000000001 down.
``@name`` is the same chat as its id: a name that is not set for any chat refers to a supergroup with a stable id.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any, Final

from floodgate.fake_telegram.calls import as_integer, as_text
from floodgate.fake_telegram.errors import bad_request

LAST_BASIC_GROUP: Final = -999_999_999_999
_SUPERGROUP_BASE: Final = -1_000_000_000_000
_SIGNIFICANT_BITS: Final = 52
_NUMBER: Final = re.compile(r"-?\d{1,16}")
_NAME: Final = re.compile(r"@[A-Za-z][A-Za-z0-9_]{2,31}")


class Chats:
    """Names and properties of chats. Used by the event loop only."""

    def __init__(self) -> None:
        self._described: dict[int, dict[str, Any]] = {}
        self._ids_by_name: dict[str, int] = {}

    def describe(self, chat_id: int, **fields: Any) -> None:
        """Set a chat's properties: ``type``, ``title``, ``username``, ``first_name``, ``is_forum``."""
        self._described.setdefault(chat_id, {}).update(fields)
        if username := fields.get("username"):
            self._ids_by_name[str(username).lstrip("@").lower()] = chat_id

    def resolve(self, value: Any) -> int:
        """Return the id that a ``chat_id`` parameter refers to.

        Raises:
            ApiError: It is empty, or not a possible id or name of a chat.
        """
        if isinstance(value, int) and not isinstance(value, bool):
            return _possible(value)
        text = as_text(value).strip()
        if not text:
            raise bad_request("chat_id is empty")
        if _NUMBER.fullmatch(text):
            return _possible(int(text))
        if not _NAME.fullmatch(text):
            raise bad_request("chat not found")
        return self._id_of(text[1:].lower())

    def as_json(self, chat_id: int) -> dict[str, Any]:
        """Return the Chat object."""
        chat = {"id": chat_id, **_plain(chat_id)}
        described = self._described.get(chat_id)
        return chat if described is None else {**chat, **described}

    def _id_of(self, name: str) -> int:
        chat_id = self._ids_by_name.get(name)
        if chat_id is None:
            digest = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "big")
            chat_id = _SUPERGROUP_BASE - 1 - digest
            self.describe(chat_id, username=name)
        return chat_id


def _possible(chat_id: int) -> int:
    if chat_id == 0 or abs(chat_id).bit_length() > _SIGNIFICANT_BITS:
        raise bad_request("chat not found")
    return chat_id


def _plain(chat_id: int) -> dict[str, Any]:
    if chat_id > 0:
        return {"first_name": f"User {chat_id}", "type": "private"}
    kind = "group" if chat_id >= LAST_BASIC_GROUP else "supergroup"
    return {"title": f"Group {-chat_id}", "type": kind}


def user_as_json(user_id: int) -> dict[str, Any]:
    """Return a user's User object."""
    return {"id": user_id, "is_bot": False, "first_name": f"User {user_id}", "language_code": "en"}


def user_id_of(value: Any) -> int:
    """Return the ``user_id`` of a call.

    Raises:
        ApiError: It is not the id of a user.
    """
    user_id = as_integer(value)
    if user_id <= 0:
        raise bad_request("invalid user_id specified")
    return user_id
