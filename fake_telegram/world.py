"""The state of the fake Telegram, apart from its limits, its scenarios and its record of calls.

A ``World`` belongs to one event loop and must not be used from another thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from floodgate.fake_telegram.bots import Bots
from floodgate.fake_telegram.chats import Chats
from floodgate.fake_telegram.drafts import Drafts
from floodgate.fake_telegram.files import Files
from floodgate.fake_telegram.messages import Message, Messages
from floodgate.fake_telegram.updates import Receiving


@dataclass(slots=True)
class World:
    """The chats, messages, files, bots and updates."""

    wall: Callable[[], float]
    """Seconds since the epoch, for the dates in messages."""
    receiving: Receiving
    tokens: Iterable[str] = ()
    bots: Bots = field(init=False)
    chats: Chats = field(default_factory=Chats)
    messages: Messages = field(default_factory=Messages)
    drafts: Drafts = field(default_factory=Drafts)
    files: Files = field(default_factory=Files)
    topics: set[tuple[int, int]] = field(default_factory=set)
    """Forum topics: chat and thread id."""
    _groups_of_media: int = 0

    def __post_init__(self) -> None:
        self.bots = Bots(self.tokens)

    def new_message(self, bot_id: int, chat_id: int, fields: dict[str, Any]) -> Message:
        """Add a bot's message to a chat, which ends its draft there. ``fields`` holds its content and other fields."""
        chat = self.chats.as_json(chat_id)
        sender = {"sender_chat": chat} if chat["type"] == "channel" else {"from": self.bots.get(bot_id).user}
        message: Message = {
            "message_id": self.messages.next_id(bot_id, chat_id),
            **sender,
            "chat": chat,
            "date": int(self.wall()),
            **fields,
        }
        self.messages.keep(bot_id, chat_id, message)
        self.drafts.end(bot_id, chat_id)
        return message

    def next_media_group_id(self) -> str:
        """Return a new id for an album."""
        self._groups_of_media += 1
        return str(13_000_000_000_000_000 + self._groups_of_media)
