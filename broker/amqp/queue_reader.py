"""Reads a queue in order; each message is removed for good or stays in its place.

Overview. :func:`floodgate.broker.amqp.async_queue_reader.browse` reads once. A reader keeps its channel, so that
between two reads its caller can process the messages, for example publish them elsewhere, and only then remove them.
Messages that were taken and not removed return to the queue when the reader is closed: to their places after ``close``;
after a crash of the process or a lost connection, in no particular order if there were more than a few. Messages being
read are hidden from other readers.

Failure handling. When ``remove`` returns, the messages are gone. A removal lost with its connection leaves its message
in the queue.
"""

from __future__ import annotations

import time
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any, Final, Self, TypeVar

from floodgate.broker.amqp.async_queue_reader import AsyncQueueReader, QueuedMessage
from floodgate.broker.amqp.connections import Connections
from floodgate.broker.amqp.session import MissingQueueError
from floodgate.broker.errors import RabbitMQUnreachableError

# RabbitMQ closes a channel that leaves a message unacknowledged for 30 minutes.
READER_SECONDS: Final = 25 * 60.0
REQUEST_SECONDS: Final = 60.0

T = TypeVar("T")


class QueueReader:
    """Reads a queue: see the module. Belongs to one thread; ``close`` is safe to call twice.

    After an error ``close`` may take a while, since it returns the held messages in order.
    """

    def __init__(self, connections: Connections, queue: str) -> None:
        self._connections = connections
        self._queue = queue
        self._ends_at = time.monotonic() + READER_SECONDS
        self._channels = AsyncExitStack()  # belongs to the loop, as does the reader
        self._reader: AsyncQueueReader | None = None
        self._closed = False

    def take(self, most: int) -> list[QueuedMessage]:
        """Return the next messages, in order; none at the end of the queue, or if the queue does not exist.

        Raises:
            RabbitMQUnreachableError: the connection was lost, or reading took too long. Open another reader.
        """

        try:
            return self._ask(self._take(most))
        except MissingQueueError:
            return []

    def pages(self, size: int, most: int) -> Iterator[list[QueuedMessage]]:
        """Yield the messages in pages of ``size``, up to ``most`` messages in all."""
        while most > 0 and (page := self.take(min(size, most))):
            most -= len(page)
            yield page

    def remove(self, messages: Sequence[QueuedMessage]) -> None:
        """Remove messages for good. Returns once RabbitMQ has removed them.

        Raises:
            RabbitMQUnreachableError: the connection was lost; some messages may still be in the queue.
        """
        self._ask(self._remove(messages))

    def close(self) -> None:
        """Return the messages that were not removed to the queue. Returns once they are back.

        Raises:
            RabbitMQUnreachableError: the connection was lost. The messages are back in the queue nevertheless.
        """
        if self._closed:
            return
        self._closed = True
        with suppress(MissingQueueError):
            self._ask(self._leave())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_raised: object) -> None:
        self.close()

    def _ask(self, coroutine: Coroutine[Any, Any, T]) -> T:
        if time.monotonic() > self._ends_at:
            coroutine.close()
            raise RabbitMQUnreachableError("This queue reader is closed or has expired: open another.")
        try:
            return self._connections.io.run(coroutine, REQUEST_SECONDS)
        except TimeoutError:
            raise RabbitMQUnreachableError("RabbitMQ did not answer in time. Check its log.") from None

    # On the event loop.

    async def _take(self, most: int) -> list[QueuedMessage]:
        return await (await self._open()).take(most)

    async def _remove(self, messages: Sequence[QueuedMessage]) -> None:
        await (await self._open()).remove(messages)

    async def _open(self) -> AsyncQueueReader:
        if self._closed:
            raise RabbitMQUnreachableError("This queue reader is closed or has expired: open another.")
        if self._reader is None:
            session = await self._channels.enter_async_context(self._connections.session())
            self._reader = AsyncQueueReader(await session.channel(), self._queue)
        return self._reader

    async def _leave(self) -> None:
        try:
            if self._reader is not None:
                await self._reader.give_back()
        finally:
            await self._channels.aclose()
