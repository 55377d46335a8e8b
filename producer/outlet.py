"""The way out of a client: its connections, and the queues that must be there before anything is published to them.

Nothing opens before the first job. The queues of a bot are declared once in a process, at the first job for that bot.
Whoever comes while that is under way shares its outcome, good or bad, so that a server which cannot be reached costs
all callers together one time-out, not each of them one after the other.

A fork inherits the knowledge of what is declared, which is the server's state, but neither the connection, which is
``Connections``' own care, nor an attempt that a thread of the parent has under way.
"""

from __future__ import annotations

import os
from concurrent.futures import Future

from broker import topology
from broker.connections import Connections
from broker.errors import ClosedError, FloodgateError
from broker.publisher import Publisher
from producer.core import Composer

Attempt = Future[None]


class Outlet:
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

    def ready(self, bot: str) -> bool:
        """Whether ``open`` returns at once."""
        return bot in self._declared and not self._closed

    def open(self, bot: str) -> None:
        """See to it that the bot's queues are there. Blocks at the first use, bounded by the time-outs set.

        Raises:
            RabbitMQError: RabbitMQ cannot be reached, is too old, or has queues of these names declared otherwise.
            ClosedError: the client was closed.
        """
        if self.ready(bot):
            return
        attempt, first = self.begin(bot)
        if first:
            self.carry_out(bot, attempt)
        attempt.result()

    def begin(self, bot: str) -> tuple[Attempt, bool]:
        """The attempt to open, and whether the caller is the first: then it must ``carry_out`` the attempt."""
        if self._closed:
            raise ClosedError("The client is closed. Make another, or close it later.")
        mine = Attempt()
        mine.set_running_or_notify_cancel()  # others share it: none of them may cancel it
        attempt = self._attempts.setdefault((os.getpid(), bot), mine)
        return attempt, attempt is mine

    def carry_out(self, bot: str, attempt: Attempt) -> None:
        """Declare the bot's queues; the outcome is the attempt's."""
        try:
            topology.declare(self._connections, self._composer.topology(bot))
        except BaseException as error:
            self._end(bot)
            attempt.set_exception(error)
            if not isinstance(error, FloodgateError):
                raise
        else:
            self._declared.add(bot)
            self._end(bot)
            attempt.set_result(None)

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

    def _end(self, bot: str) -> None:
        del self._attempts[os.getpid(), bot]
