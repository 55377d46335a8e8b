"""Learns from the answers to ``getUpdates`` which chats can be reached.

Floodgate sends nothing for a day to a chat that Telegram has called unreachable, unless an update from the chat
arrives. If a bot polls through the gateway, its updates are seen here. The answer is passed to the caller as it
arrives; a copy is read afterwards.
"""

from __future__ import annotations

import json
import logging
from typing import Final

from floodgate.broker.errors import MalformedUpdateError, StateError
from floodgate.broker.messages.update import read_update
from floodgate.broker.state.calls import BatchedAdmission

logger = logging.getLogger("floodgate.gateway")

# A hundred updates are about 100 kB. A larger answer is passed on without being read.
MAX_BYTES: Final = 4 * 1024 * 1024


class ReachabilityTap:
    """Reads a copy of one answer to ``getUpdates``. Belongs to the event loop."""

    def __init__(self, store: BatchedAdmission, bot: str) -> None:
        self._store = store
        self._bot = bot
        self._pieces: list[bytes] = []
        self._size = 0

    def feed(self, piece: bytes) -> None:
        """Add a piece of the answer's body."""
        self._size += len(piece)
        if self._size <= MAX_BYTES:
            self._pieces.append(piece)

    async def end(self) -> None:
        """Record in the store which chats can be reached. If it is unavailable, the chat's next update is recorded."""
        if self._size > MAX_BYTES:
            return
        try:
            for chat in chats_in(self._bot, b"".join(self._pieces)):
                if await self._store.heard_from(self._bot, chat):
                    logger.info("chat %s of bot %s can be reached again: it sent an update", chat, self._bot)
        except StateError as error:
            logger.info("cannot record which chats are reachable: %s", error)


def chats_in(bot: str, answer: bytes) -> set[str]:
    """The chats that an answer to ``getUpdates`` shows to be reachable; empty if the answer has another form."""
    try:
        fields = json.loads(answer)
    except (ValueError, RecursionError):
        return set()
    updates = fields.get("result") if isinstance(fields, dict) else None
    chats = (_chat(bot, body) for body in updates) if isinstance(updates, list) else ()
    return {chat for chat in chats if chat is not None}


def _chat(bot: str, body: object) -> str | None:
    try:
        return read_update(bot, body).chat_heard_from
    except MalformedUpdateError:
        return None
