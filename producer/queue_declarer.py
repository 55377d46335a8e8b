"""Declares a bot's queues before a client publishes to them, over the client's connections.

Nothing opens before the first job. The queues of a bot are declared once in a process, at the first job for that bot.
Whoever comes while that is under way shares its outcome, good or bad, so that a server which cannot be reached costs
all callers together one time-out, not each of them one after the other.

A fork inherits the knowledge of what is declared, which is the server's state, but neither the connection, which is
``Connections``' own care, nor an attempt that a thread of the parent has under way.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial

from floodgate.broker.amqp import queue_admin
from floodgate.broker.amqp.connections import Connections
from floodgate.broker.amqp.publisher import Publisher, PublishOutcomes
from floodgate.broker.errors import ClosedError, FloodgateError, RabbitMQUnreachableError
from floodgate.broker.messages.publication import Publication
from floodgate.broker.process.event_loop import BorrowedLoop
from floodgate.producer.core import Composer

Attempt = Future[None]


class QueueDeclarer:
    """Opens at first use; any thread may use it. ``close`` may be called twice, and without use."""

    def __init__(self, composer: Composer, connections: Connections, *, owned: bool) -> None:
        self._composer = composer
        self._connections = connections
        self._owned = owned
        self._closed = False
        # Both are touched by single operations that are atomic of themselves, so no lock can be caught by a fork.
        self._declared: set[str] = set()  # bots
        self._attempts: dict[tuple[int, str], Attempt] = {}  # by process id and bot

    @property
    def publisher(self) -> Publisher:
        return self._connections.publisher

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        """Run a call on the event loop of the connections after a while; never, if they are closed. Any thread."""
        with suppress(RabbitMQUnreachableError):
            io = self._connections.io
            io.call_soon(partial(_set_timer, io, seconds, call))

    def submit_at_once(self, publications: Sequence[Publication]) -> Future[PublishOutcomes] | None:
        """Hand several over, on that loop; None if there is no room for them now.

        Raises:
            RabbitMQUnreachableError: they are closed.
        """
        return self._connections.publisher.submit_at_once(publications)

    def ready(self, bot: str) -> bool:
        """Whether ``open`` returns at once."""
        return bot in self._declared and not self._closed

    def open(self, bot: str) -> None:
        """See to it that the bot's queues are there. Blocks at the first use, bounded by the time-outs set.

        Raises:
            RabbitMQError: RabbitMQ cannot be reached, is too old, or has queues of these names declared otherwise.
            ClosedError: the client was closed.
        """
        if not self.ready(bot):
            self._attempt(bot).result()

    async def aopen(self, bot: str) -> None:
        """:meth:`open` on an event loop. A caller who is cancelled does not take the attempt from the others."""
        if not self.ready(bot):
            await asyncio.shield(asyncio.wrap_future(self._attempt(bot)))

    def _attempt(self, bot: str) -> Attempt:
        """The attempt to open that is under way in this process, begun if there is none."""
        if self._closed:
            raise ClosedError("The client is closed. Make another, or close it later.")
        mine = Attempt()
        mine.set_running_or_notify_cancel()  # others share it: none of them may cancel it
        attempt = self._attempts.setdefault((os.getpid(), bot), mine)
        if attempt is mine:
            self._begin(bot, mine)
        return attempt

    def _begin(self, bot: str, attempt: Attempt) -> None:
        """Declare the bot's queues on the loop of the connections; the outcome is the attempt's."""
        try:
            self.publisher.refuse_when_away(time.monotonic())
            declared = self._connections.io.begin(queue_admin.adeclare(self._connections, self._composer.topology(bot)))
        except (FloodgateError, RuntimeError) as error:  # closed, crashed, or not on a loop
            self._end(bot)
            attempt.set_exception(error)
            return
        declared.add_done_callback(lambda done: self._finish(bot, attempt, done))

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
        """The bot's queues turned out to be missing: declare them again at the next ``open``."""
        self._declared.discard(bot)

    def close(self) -> None:
        """Wait, bounded, for what is not confirmed, and stop what this client started."""
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
