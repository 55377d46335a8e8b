"""The messages in the chats, as each bot sees them, so that edits, replies, copies and deletions can be judged.

Bounded: beyond ``capacity`` the oldest are forgotten, and editing one then answers as if it had never been. Message
ids grow by one per bot and chat and are never given twice. Touched by the event loop only.
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
        """A fresh message id of the chat."""
        message_id = self._last_ids.get((bot_id, chat_id), 0) + 1
        self._last_ids[(bot_id, chat_id)] = message_id
        return message_id

    def keep(self, bot_id: int, chat_id: int, message: Message) -> None:
        """Remember a new message."""
        self._kept[(bot_id, chat_id, message["message_id"])] = message
        if len(self._kept) > self._capacity:
            self._kept.popitem(last=False)

    def find(self, bot_id: int, chat_id: int, message_id: int) -> Message | None:
        return self._kept.get((bot_id, chat_id, message_id))

    def replace(self, bot_id: int, chat_id: int, message: Message) -> None:
        """Put an edited message in the place of what it was."""
        self._kept[(bot_id, chat_id, message["message_id"])] = message

    def delete(self, bot_id: int, chat_id: int, message_id: int) -> bool:
        """Whether there was such a message."""
        return self._kept.pop((bot_id, chat_id, message_id), None) is not None
