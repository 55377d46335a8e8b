"""Reading a queue: its messages are taken in order, and each is removed for good or stays where it is.

Overview. :func:`floodgate.broker.amqp.async_queue_reader.browse` reads once. A reader keeps its channel, so that
between two looks its caller can do something about what it has seen, such as publish it elsewhere, and only then remove
it. What was taken and not removed goes back when the reader is closed: to its place by ``close``; by a crash of the
process or a lost connection without its order, if it was more than a few. Messages being read are hidden from others.

Failure handling. A removal has been carried out when ``remove`` returns. One that a lost connection swallowed leaves
its message in the queue.
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

# RabbitMQ ends a channel that leaves a message unanswered for 30 minutes.
READER_SECONDS: Final = 25 * 60.0
REQUEST_SECONDS: Final = 60.0

T = TypeVar("T")


class QueueReader:
    """See the module. Belongs to one thread; ``close`` is safe to call twice. After a fault it may take a while: what
    was held is given back in order."""

    def __init__(self, connections: Connections, queue: str) -> None:
        self._connections = connections
        self._queue = queue
        self._ends_at = time.monotonic() + READER_SECONDS
        self._channels = AsyncExitStack()  # the loop's, as the reader is
        self._reader: AsyncQueueReader | None = None
        self._closed = False

    def take(self, most: int) -> list[QueuedMessage]:
        """The next messages, in order; none at the end of the queue, and of a queue that is not there.

        Raises:
            RabbitMQUnreachableError: the connection is lost, or reading took too long. Open another reader.
        """

        try:
            return self._ask(self._take(most))
        except MissingQueueError:
            return []

    def pages(self, size: int, most: int) -> Iterator[list[QueuedMessage]]:
        """All messages up to ``most``, by the page."""
        while most > 0 and (page := self.take(min(size, most))):
            most -= len(page)
            yield page

    def remove(self, messages: Sequence[QueuedMessage]) -> None:
        """Take messages away for good; returns when they are.

        Raises:
            RabbitMQUnreachableError: the connection is lost; some may still be there.
        """
        self._ask(self._remove(messages))

    def close(self) -> None:
        """Give back what was not removed; returns when it is back.

        Raises:
            RabbitMQUnreachableError: the connection is lost. What was not removed is back all the same.
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
            raise RabbitMQUnreachableError("RabbitMQ did not answer in time. See its log.") from None

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
