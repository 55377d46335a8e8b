"""The messages in the chats, as each bot sees them, so that edits, replies, copies and deletions can be checked.

Bounded: beyond ``capacity`` the oldest messages are forgotten, and editing one answers as if it had never existed.
Message ids grow by one per bot and chat and are never reused. Used by the event loop only.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Final

CAPACITY: Final = 100_000  # about 1 kB each

Message = dict[str, Any]
"""The Bot API's Message object."""


class Messages:
    """Messages by bot, chat and id."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._kept: OrderedDict[tuple[int, int, int], Message] = OrderedDict()
        self._last_ids: dict[tuple[int, int], int] = {}

    def next_id(self, bot_id: int, chat_id: int) -> int:
        """Return a new message id of the chat."""
        message_id = self._last_ids.get((bot_id, chat_id), 0) + 1
        self._last_ids[(bot_id, chat_id)] = message_id
        return message_id

    def keep(self, bot_id: int, chat_id: int, message: Message) -> None:
        """Store a new message."""
        self._kept[(bot_id, chat_id, message["message_id"])] = message
        if len(self._kept) > self._capacity:
            self._kept.popitem(last=False)

    def find(self, bot_id: int, chat_id: int, message_id: int) -> Message | None:
        """Return a message; None if it does not exist or was forgotten."""
        return self._kept.get((bot_id, chat_id, message_id))

    def latest(self, bot_id: int, chat_id: int, most: int) -> list[Message]:
        """Return the latest messages of a chat, oldest first, those that were not forgotten. Reads all messages."""
        found = [message for (bot, chat, _), message in self._kept.items() if (bot, chat) == (bot_id, chat_id)]
        return sorted(found, key=lambda message: int(message["message_id"]))[-most:]

    def replace(self, bot_id: int, chat_id: int, message: Message) -> None:
        """Replace a message by its edited version."""
        self._kept[(bot_id, chat_id, message["message_id"])] = message

    def delete(self, bot_id: int, chat_id: int, message_id: int) -> bool:
        """Delete a message. Return whether it existed."""
        return self._kept.pop((bot_id, chat_id, message_id), None) is not None
