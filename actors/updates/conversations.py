"""Loads the conversations of an Application into memory.

The library reads the whole persistence at the start. A persistence that several workers share is read on demand
instead: before an update is handled, the conversations that it may belong to are read if they are not in memory. When a
partition moves here from another worker, its conversations are dropped from memory, and so read again. Nothing is
loaded for inactive chats.

Any other persistence is read completely at the start, and again when a partition moves, because it offers no other way.
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
    """A persistence that reads conversations on demand."""

    conversations_on_demand: bool
    """Whether ``get_conversations`` returns none, because each is read when an update needs it."""

    async def read_conversations(self, name: str, keys: Sequence[ConversationKey]) -> dict[ConversationKey, object]:
        """Read the states of some conversations of the handler ``name``. Unknown keys are left out."""
        ...


class Conversations:
    """The conversations of one Application. Belongs to its event loop."""

    def __init__(self, application: Application[Any, Any, Any, Any, Any, Any]) -> None:
        self._application = application
        persistence = application.persistence
        self._reader = persistence if isinstance(persistence, ConversationReader) else None

    def open(self) -> None:
        """Switch the persistence to reading on demand. Call before the Application is initialised."""
        if self._reader is not None:
            self._reader.conversations_on_demand = True

    async def prepare(self, update: Update) -> None:
        """Load the conversations that the handlers may look up for an update."""
        if self._reader is None:
            return
        keys = keys_of(update)
        for name, loaded in self._all():
            if missing := [key for key in keys if key not in loaded]:
                found = _ongoing(await self._reader.read_conversations(name, missing))
                loaded.update_no_track({key: state for key, state in found.items() if key not in loaded})

    async def renew(self, partition: int, partitions: int) -> None:
        """Drop or reload a partition's conversations. They are out of date because another worker had the partition."""
        persistence = self._application.persistence
        for name, loaded in self._all():
            for key in [key for key in loaded if _is_of(key, partition, partitions)]:
                loaded.data.pop(key)
            if self._reader is None and persistence is not None:
                stored = _ongoing(await persistence.get_conversations(name))
                loaded.update_no_track(
                    {key: state for key, state in stored.items() if _is_of(key, partition, partitions)}
                )

    def _all(self) -> list[tuple[str, Any]]:
        return list(self._application._conversation_handler_conversations.items())


def keys_of(update: Update) -> list[ConversationKey]:
    """The keys that a ``ConversationHandler`` may use for an update, for all values of its ``per_chat``, ``per_user``
    and ``per_message``."""
    chat = [update.effective_chat.id] if update.effective_chat else []
    user = [update.effective_user.id] if update.effective_user else []
    keys: list[ConversationKey] = [tuple(chat), tuple(user), (*chat, *user)]
    if (query := update.callback_query) is not None:
        message = query.inline_message_id or (query.message.message_id if query.message else None)
        keys += [(*key, message) for key in ((), *keys)] if message else []
    return [key for key in dict.fromkeys(keys) if key]


def _ongoing(stored: Mapping[ConversationKey, object]) -> dict[ConversationKey, object]:
    """Leave out conversations that have ended: with non-blocking handlers, the library stores the end as a state."""
    return {key: state for key, state in stored.items() if state != ConversationHandler.END}


def _is_of(key: ConversationKey, partition: int, partitions: int) -> bool:
    """Whether a conversation belongs to a partition. Its key begins with its chat or user."""
    return partition_of(str(key[0]), partitions) == partition
