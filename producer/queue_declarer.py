"""Declares a bot's queues before a client publishes to them, over the client's connections.

Nothing opens before the first job. A process declares the queues of a bot once, at the first job for that bot. Callers
that arrive meanwhile share the outcome, success or failure, so an unreachable server costs all callers together one
time-out instead of one each in turn. While it declares them, it looks once whether a worker consumes them, and warns if
none does: the name of the bot may be wrong.

A fork keeps the set of declared queues, since they exist on the server. It inherits neither the connection, which
``Connections`` takes care of, nor an attempt under way on one of the parent's threads.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial

from floodgate.broker.amqp import queue_admin
from floodgate.broker.amqp.connections import Connections
from floodgate.broker.amqp.publisher import Publisher, PublishOutcomes
from floodgate.broker.errors import ClosedError, FloodgateError, RabbitMQUnreachableError, UnroutableError
from floodgate.broker.messages.job import Priority
from floodgate.broker.messages.publication import Publication
from floodgate.broker.messages.queue_names import send_queue
from floodgate.broker.process.event_loop import BorrowedLoop
from floodgate.producer.core import Composer

logger = logging.getLogger("floodgate.client")

Attempt = Future[None]


class QueueDeclarer:
    """Declares queues at first use. Safe to use from any thread; ``close`` may be called twice, and without use."""

    def __init__(self, composer: Composer, connections: Connections, *, owned: bool) -> None:
        self._composer = composer
        self._connections = connections
        self._owned = owned
        self._closed = False
        # All are accessed by single atomic operations, so there is no lock that a fork could copy while it is held.
        self._declared: set[str] = set()  # bots
        self._looked_at: set[str] = set()  # bots of which it was checked whether a worker serves them
        self._attempts: dict[tuple[int, str], Attempt] = {}  # by process id and bot

    @property
    def publisher(self) -> Publisher:
        """The publisher of the connections."""
        return self._connections.publisher

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        """Run a function on the connections' event loop after a delay; never, if they are closed. Safe to call from any
        thread."""
        with suppress(RabbitMQUnreachableError):
            io = self._connections.io
            io.call_soon(partial(_set_timer, io, seconds, call))

    def submit_at_once(self, publications: Sequence[Publication]) -> Future[PublishOutcomes] | None:
        """Publish several messages. Call on that loop. Returns None if the publish window is full.

        Raises:
            RabbitMQUnreachableError: the connections are closed.
        """
        return self._connections.publisher.submit_at_once(publications)

    def ready(self, bot: str) -> bool:
        """Whether ``open`` returns immediately."""
        return bot in self._declared and not self._closed

    def open(self, bot: str) -> None:
        """Make sure that the bot's queues exist. Blocks at first use, within the configured time-outs.

        Raises:
            RabbitMQError: RabbitMQ cannot be reached, is too old, or has these queues with other arguments.
            ClosedError: the client was closed.
        """
        if not self.ready(bot):
            self._attempt(bot).result()

    async def aopen(self, bot: str) -> None:
        """:meth:`open` on an event loop. Cancelling one caller does not cancel the attempt for the others."""
        if not self.ready(bot):
            await asyncio.shield(asyncio.wrap_future(self._attempt(bot)))

    async def apublish(self, bot: str, publication: Publication) -> None:
        """Publish a job of a bot, on an event loop, and wait for the confirm. Missing queues are declared.

        Raises:
            RabbitMQError: as :meth:`open`, or RabbitMQ did not accept the job.
            ClosedError: the client was closed.
        """
        await self.aopen(bot)
        try:
            await self.publisher.apublish(publication)
        except UnroutableError:
            # The queue was deleted after this process had declared it. Nothing was accepted, so no job is duplicated.
            self.forget(bot)
            await self.aopen(bot)
            await self.publisher.apublish(publication)

    def _attempt(self, bot: str) -> Attempt:
        """Return this process's attempt for a bot, starting one if none is under way."""
        if self._closed:
            raise ClosedError("The client is closed: create another one, or close it later.")
        mine = Attempt()
        mine.set_running_or_notify_cancel()  # callers share it, so none of them may cancel it
        attempt = self._attempts.setdefault((os.getpid(), bot), mine)
        if attempt is mine:
            self._begin(bot, mine)
        return attempt

    def _begin(self, bot: str, attempt: Attempt) -> None:
        """Declare the bot's queues on the connections' loop, and resolve the attempt with the outcome."""
        try:
            self.publisher.refuse_when_away(time.monotonic())
            declared = self._connections.io.begin(self._prepare(bot))
        except (FloodgateError, RuntimeError) as error:  # closed, crashed, or not on a loop
            self._end(bot)
            attempt.set_exception(error)
            return
        declared.add_done_callback(lambda done: self._finish(bot, attempt, done))

    async def _prepare(self, bot: str) -> None:
        """Declare the bot's queues, and look for a worker at the same time, so that this delays no job."""
        _, served = await asyncio.gather(
            queue_admin.adeclare(self._connections, self._composer.topology(bot)), self._is_served(bot)
        )
        if bot in self._looked_at:
            return
        self._looked_at.add(bot)
        if not served:
            logger.warning(
                "no worker takes the jobs of bot %r at present: they wait until one does. Check the bot's name, and "
                "that a `floodgate worker` with its token is running.",
                bot,
            )

    async def _is_served(self, bot: str) -> bool:
        queue = send_queue(bot, Priority.INTERACTIVE, 0)  # every worker of the bot consumes it
        load = (await queue_admin.aloads(self._connections, [queue]))[queue]
        return load is not None and load.consumers > 0

    def _finish(self, bot: str, attempt: Attempt, declared: Future[None]) -> None:
        error = RabbitMQUnreachableError("The event loop ended.") if declared.cancelled() else declared.exception()
        if error is None:
            self._declared.add(bot)
        self._end(bot)
        if error is None:
            attempt.set_result(None)
        else:
            attempt.set_exception(error)

    def forget(self, bot: str) -> None:
        """Declare the bot's queues again at the next ``open``, because they turned out to be missing."""
        self._declared.discard(bot)

    def close(self) -> None:
        """Wait, within bounds, for unconfirmed jobs, and stop the connections if this client opened them."""
        if self._closed:
            return
        self._closed = True
        if self._owned:
            self._connections.stop()

    async def aclose(self) -> None:
        """:meth:`close` on an event loop."""
        if self._closed:
            return
        self._closed = True
        if self._owned:
            await self._connections.aclose()

    def _end(self, bot: str) -> None:
        del self._attempts[os.getpid(), bot]


def _set_timer(io: BorrowedLoop, seconds: float, call: Callable[[], None]) -> None:
    io.call_later(seconds, call)
