"""The part of a client that streams need: enqueue a job, learn its end, withdraw it. Belongs to one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import Any, Final, Protocol

from floodgate.broker.admission.contract import Record
from floodgate.broker.messages.job import Job
from floodgate.producer.ledger import Ledger, result_of
from floodgate.producer.waiting import ended

SEND_SECONDS: Final = 10.0
"""How long a stream waits for the answer to a send under way, because it has the message's id."""
LOOK_SECONDS: Final = 0.5
"""Between two looks at a call under way."""


class EndOfJob(Protocol):
    """Tells when a job ends."""

    @property
    def record(self) -> asyncio.Future[Record]:
        """Resolved with the job's record when it ends, or with ``ClosedError``."""
        ...

    def close(self) -> None:
        """Wait no longer. Safe to call twice."""
        ...


class StreamPipeline(Protocol):
    """What streams do with jobs. Each method raises a ``FloodgateError`` within bounded time if it cannot."""

    def watch(self, job: Job) -> EndOfJob:
        """Watch a job, which may not have been enqueued yet."""
        ...

    async def enqueue(self, job: Job) -> object:
        """Return once RabbitMQ has the job on disk."""
        ...

    async def look(self, job: Job) -> Record | None:
        """Look up where a job stands."""
        ...

    async def withdraw(self, *jobs: Job) -> list[Record]:
        """End jobs that wait, without counting or listing them, and return their records."""
        ...

    async def result(self, job: Job, seconds: float) -> Any:
        """Wait for Telegram's result."""
        ...


class WatchedJob:
    """The :class:`EndOfJob` of a ledger."""

    def __init__(self, ledger: Ledger, job: Job) -> None:
        self.record: asyncio.Future[Record] = asyncio.get_running_loop().create_future()
        self._registered = ExitStack()
        self._registered.enter_context(ledger.awaited(job, self.record))

    def close(self) -> None:
        """Wait no longer. Safe to call twice."""
        self._registered.close()
        if not self.record.cancel() and not self.record.cancelled():
            self.record.exception()  # "the client was closed" concerns nobody any more


class LedgerPipeline:
    """The :class:`StreamPipeline` of a client.

    Args:
        enqueue: enqueues a job on the loop that runs.
    """

    def __init__(self, enqueue: Callable[[Job], Awaitable[object]], ledger: Ledger) -> None:
        self._enqueue = enqueue
        self._ledger = ledger

    def watch(self, job: Job) -> WatchedJob:
        """Watch a job, which may not have been enqueued yet."""
        return WatchedJob(self._ledger, job)

    async def enqueue(self, job: Job) -> object:
        """Return once RabbitMQ has the job on disk."""
        return await self._enqueue(job)

    async def look(self, job: Job) -> Record | None:
        """Look up where a job stands."""
        return await asyncio.to_thread(self._ledger.look, job)

    async def withdraw(self, *jobs: Job) -> list[Record]:
        """End jobs that wait, and return their records."""
        return await asyncio.to_thread(self._ledger.withdraw, jobs)

    async def result(self, job: Job, seconds: float) -> Any:
        """Wait for Telegram's result."""
        watched = self.watch(job)
        try:
            record = await self.look(job)
            if not ended(record):
                await asyncio.wait((watched.record,), timeout=seconds)
                record = watched.record.result() if watched.record.done() else await self.look(job)
            return result_of(job, record)
        finally:
            watched.close()
