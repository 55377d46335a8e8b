"""The conversations in an Application's memory: which are read, and when.

The library reads all of a persistence at the start. A persistence that several workers share reads on demand instead:
before an update is handled, the conversations that it may belong to, if they are not in memory. Those of a partition
that comes from another worker are forgotten, and so read anew. Nothing is loaded for chats that say nothing.

Of any other persistence all are read at the start, and again when a partition moves, for there is no other way to ask.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from telegram import Update
from telegram.ext import Application, ConversationHandler

from floodgate.broker.messages.partitions import partition_of

ConversationKey = tuple[int | str, ...]


@runtime_checkable
class ConversationReader(Protocol):
    """What a persistence has that reads conversations on demand."""

    conversations_on_demand: bool
    """Whether ``get_conversations`` gives none, since each is read when an update asks for it."""

    async def read_conversations(self, name: str, keys: Sequence[ConversationKey]) -> dict[ConversationKey, object]: ...


class Conversations:
    """Of one Application; belongs to its event loop."""

    def __init__(self, application: Application[Any, Any, Any, Any, Any, Any]) -> None:
        self._application = application
        persistence = application.persistence
        self._reader = persistence if isinstance(persistence, ConversationReader) else None

    def open(self) -> None:
        """Before the Application is initialised."""
        if self._reader is not None:
            self._reader.conversations_on_demand = True

    async def prepare(self, update: Update) -> None:
        """Have in memory what the conversation handlers will look for."""
        if self._reader is None:
            return
        keys = keys_of(update)
        for name, here in self._all():
            if missing := [key for key in keys if key not in here]:
                found = _going_on(await self._reader.read_conversations(name, missing))
                here.update_no_track({key: state for key, state in found.items() if key not in here})

    async def renew(self, partition: int, partitions: int) -> None:
        """The partition had another worker: its conversations in memory are out of date."""
        persistence = self._application.persistence
        for name, here in self._all():
            for key in [key for key in here if _is_of(key, partition, partitions)]:
                here.data.pop(key)
            if self._reader is None and persistence is not None:
                stored = _going_on(await persistence.get_conversations(name))
                here.update_no_track(
                    {key: state for key, state in stored.items() if _is_of(key, partition, partitions)}
                )

    def _all(self) -> list[tuple[str, Any]]:
        return list(self._application._conversation_handler_conversations.items())


def keys_of(update: Update) -> list[ConversationKey]:
    """All keys that a ``ConversationHandler`` may have for an update, whatever its ``per_chat``, ``per_user`` and
    ``per_message``."""
    chat = [update.effective_chat.id] if update.effective_chat else []
    user = [update.effective_user.id] if update.effective_user else []
    keys: list[ConversationKey] = [tuple(chat), tuple(user), (*chat, *user)]
    if (query := update.callback_query) is not None:
        message = query.inline_message_id or (query.message.message_id if query.message else None)
        keys += [(*key, message) for key in ((), *keys)] if message else []
    return [key for key in dict.fromkeys(keys) if key]


def _going_on(stored: Mapping[ConversationKey, object]) -> dict[ConversationKey, object]:
    """Without those that ended: the library keeps the end of a handler that did not block as a state."""
    return {key: state for key, state in stored.items() if state != ConversationHandler.END}


def _is_of(key: ConversationKey, partition: int, partitions: int) -> bool:
    """Whether a conversation's key, which begins with its chat or user, is of a partition."""
    return partition_of(str(key[0]), partitions) == partition
