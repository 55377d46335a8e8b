"""The ledger of handled updates, so that an update delivered twice is handled once.

An update is delivered twice when its receiver died between RabbitMQ's confirm and Telegram's (it is published again),
or when its worker died between the end of its handler and the ack (it is redelivered). A worker checks the ledger
before it calls the handler and marks the update afterwards, before the ack. So an update is handled twice only if a
worker dies in between: while the handler runs, or immediately after.

Marks, a bit or a small row each, are kept for at least :data:`KEEP_SECONDS`, twice as long as Telegram keeps an update.

The ledger also records a partition's home, the worker that handled its last update: a worker to which a partition moves
learns that its in-memory data about those chats may be out of date.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from floodgate.broker.state.thread import StateThread

KEEP_SECONDS: Final = 48 * 3600


@dataclass(frozen=True, slots=True)
class UpdateStatus:
    """Whether an update was handled before. ``moved_from`` is the worker that had its queue before, if another."""

    handled: bool
    moved_from: str | None = None


class HandledUpdates(Protocol):
    """The ledger of updates. Any method raises ``StateUnavailableError`` when the store cannot answer."""

    def begin(self, bot: str, update_id: int, queue: str, worker_id: str) -> UpdateStatus:
        """Look up an update that this worker got from this queue. The worker becomes the queue's home."""
        ...

    def mark(self, bot: str, update_id: int) -> None:
        """Mark an update as handled or dead-lettered. Idempotent."""
        ...

    def forget(self, bot: str, update_id: int) -> None:
        """Remove the mark of an update that an operator replays, so that it is handled again."""
        ...

    def close(self) -> None:
        """Release files and sockets. Safe to call twice, and unused."""
        ...


class AwaitedHandled:
    """:class:`HandledUpdates` for an event loop: its calls run on the state thread."""

    def __init__(self, ledger: HandledUpdates, thread: StateThread) -> None:
        self._ledger = ledger
        self._thread = thread

    async def begin(self, bot: str, update_id: int, queue: str, worker_id: str) -> UpdateStatus:
        return await self._thread.call(self._ledger.begin, bot, update_id, queue, worker_id)

    async def mark(self, bot: str, update_id: int) -> None:
        await self._thread.call(self._ledger.mark, bot, update_id)

    async def close(self) -> None:
        """Safe to call twice, and unused."""
        await self._thread.call(self._ledger.close)
