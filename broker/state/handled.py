"""Which updates have been handled: so that one which comes twice is handled once.

An update comes twice when its receiver died between RabbitMQ's confirm and Telegram's (it is published again), and when
its worker died between the end of its handler and the ack (it is delivered again). A worker asks before it calls the
handler and notes it after, before the ack. So it is handled twice only if a worker dies between the two: while the
handler runs, or in the moment after.

Kept for :data:`KEEP_SECONDS` at least, which is twice as long as Telegram keeps an update; a bit or a small row each.

A partition's home, the worker that handled its last update, is kept along with it: a worker to which a partition moves
learns that what it holds in memory of those chats may be out of date.
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
        """Look an update up that came from this queue to this worker, which is the queue's home from now on."""
        ...

    def mark(self, bot: str, update_id: int) -> None:
        """The update is dealt with: handled, or dead-lettered. Idempotent."""
        ...

    def forget(self, bot: str, update_id: int) -> None:
        """The update shall be handled if it comes again: an operator replays it."""
        ...

    def close(self) -> None:
        """Release files and sockets. Safe to call twice, and unused."""
        ...


class AwaitedHandled:
    """:class:`HandledUpdates` for an event loop: its calls are carried out on the state thread."""

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
