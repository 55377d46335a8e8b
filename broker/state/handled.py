"""Records which updates have been handled, so that an update that arrives twice is handled once.

An update arrives twice if its receiver died between RabbitMQ's confirm and Telegram's (it is published again), or if
its worker died between the end of its handler and the ack (it is delivered again). A worker checks the record before it
calls the handler, and adds to it afterwards, before the ack. So an update is handled twice only if a worker dies in
between: while the handler runs, or just after it.

Records are kept for at least :data:`KEEP_SECONDS`, twice as long as Telegram keeps an update. Each is a bit or a small
row.

Each partition's last worker is recorded too: when a partition moves to another worker, that worker learns that the data
it holds in memory about those chats may be out of date.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from floodgate.broker.state.thread import StateThread

KEEP_SECONDS: Final = 48 * 3600


@dataclass(frozen=True, slots=True)
class UpdateStatus:
    """Whether an update has been handled. ``moved_from`` is the previous worker of its queue, if that was another."""

    handled: bool
    moved_from: str | None = None


class HandledUpdates(Protocol):
    """The ledger of handled updates. Blocking.

    Any method raises ``StateUnavailableError`` if the store is unavailable.
    """

    def begin(self, bot: str, update_id: int, queue: str, worker_id: str) -> UpdateStatus:
        """Look up an update, and record the worker as the current one of its queue."""
        ...

    def mark(self, bot: str, update_id: int) -> None:
        """Record an update as done: handled or dead-lettered. Idempotent."""
        ...

    def forget(self, bot: str, update_id: int) -> None:
        """Forget an update, so that it is handled if it arrives again: for an operator's replay."""
        ...

    def close(self) -> None:
        """Release files and sockets. Safe to call twice, and on an unused store."""
        ...


class AwaitedHandled:
    """:class:`HandledUpdates` for an event loop. Its calls run on the state thread."""

    def __init__(self, ledger: HandledUpdates, thread: StateThread) -> None:
        self._ledger = ledger
        self._thread = thread

    async def begin(self, bot: str, update_id: int, queue: str, worker_id: str) -> UpdateStatus:
        """As :meth:`HandledUpdates.begin`."""
        return await self._thread.call(self._ledger.begin, bot, update_id, queue, worker_id)

    async def mark(self, bot: str, update_id: int) -> None:
        """As :meth:`HandledUpdates.mark`."""
        await self._thread.call(self._ledger.mark, bot, update_id)

    async def close(self) -> None:
        """Release files and sockets. Safe to call twice, and on an unused ledger."""
        await self._thread.call(self._ledger.close)
