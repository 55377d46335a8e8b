"""Which chats can be reached, as answers to ``getUpdates`` show.

A chat that Telegram refused for good is not asked again for a day, unless it is heard from. A bot that polls through
the gateway hears from its chats here. The answer goes to its caller as it comes; a copy is read afterwards.
"""

from __future__ import annotations

import json
import logging
from typing import Final

from floodgate.broker.errors import MalformedUpdateError, StateError
from floodgate.broker.messages.update import read_update
from floodgate.broker.state.calls import BatchedAdmission

logger = logging.getLogger("floodgate.gateway")

# A hundred updates are some 100 kB. An answer beyond this is passed on and not looked into.
MAX_BYTES: Final = 4 * 1024 * 1024


class ReachabilityTap:
    """Reads a copy of one answer to ``getUpdates``. Belongs to the event loop."""

    def __init__(self, store: BatchedAdmission, bot: str) -> None:
        self._store = store
        self._bot = bot
        self._pieces: list[bytes] = []
        self._size = 0

    def feed(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size <= MAX_BYTES:
            self._pieces.append(piece)

    async def end(self) -> None:
        """Tell the store which chats can be reached. If it is away, the next update of the chat tells it."""
        if self._size > MAX_BYTES:
            return
        try:
            for chat in chats_in(self._bot, b"".join(self._pieces)):
                if await self._store.heard_from(self._bot, chat):
                    logger.info("chat %s of bot %s can be reached again: it was heard from", chat, self._bot)
        except StateError as error:
            logger.info("cannot record which chats are reachable: %s", error)


def chats_in(bot: str, answer: bytes) -> set[str]:
    """The chats that can be reached, by an answer to ``getUpdates``; none, if it is no such answer."""
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
