"""Drafts: partial messages that a private chat shows while a bot writes them.

A draft lives for :data:`LIFE_SECONDS` after it was last sent, and ends when the bot sends a message to the chat. A chat
shows one draft of a bot at a time. Bounded by :data:`MOST_DRAFTS`. Used by the event loop only.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Final

LIFE_SECONDS: Final = 30.0
MOST_DRAFTS: Final = 100_000  # beyond it, the drafts that were not sent for the longest time are forgotten


class Drafts:
    """The drafts that chats show, by bot and chat."""

    def __init__(self) -> None:
        self._shown: OrderedDict[tuple[int, int], tuple[float, dict[str, Any]]] = OrderedDict()

    def show(self, bot_id: int, chat_id: int, draft: dict[str, Any], now: float) -> None:
        """Show a draft in place of any other."""
        self._shown[bot_id, chat_id] = now + LIFE_SECONDS, draft
        self._shown.move_to_end((bot_id, chat_id))
        if len(self._shown) > MOST_DRAFTS:
            self._shown.popitem(last=False)

    def find(self, bot_id: int, chat_id: int, now: float) -> dict[str, Any] | None:
        """Return the draft that a chat shows."""
        until, draft = self._shown.get((bot_id, chat_id), (0.0, None))
        return draft if now < until else None

    def end(self, bot_id: int, chat_id: int) -> None:
        """Show no draft: the bot has sent a message."""
        self._shown.pop((bot_id, chat_id), None)
