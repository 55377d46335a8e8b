"""The way out of a client: its connections, and the queues that must be there before anything is published to them.

Nothing opens before the first job. The queues of a bot are declared once in a process, at the first job for that bot;
declaring is idempotent, so that threads or processes that do it at once do no harm. A fork inherits the knowledge of
what is declared, which is the server's state, and none of the connection: that is ``Connections``' own care.
"""

from __future__ import annotations

import os
import threading

from broker import topology
from broker.connections import Connections
from broker.errors import ClosedError
from broker.publisher import Publisher
from producer.core import Composer


class Outlet:
    """Opens at first use; any thread may use it. ``close`` may be called twice, and without use."""

    def __init__(self, composer: Composer, connections: Connections, *, owned: bool) -> None:
        self._composer = composer
        self._connections = connections
        self._owned = owned
        self._closed = False
        self._declared: set[str] = set()  # bots; added to under the lock, read by anyone
        # By process id: a lock that another thread held at the moment of a fork would never be released in the child.
        self._locks: dict[int, threading.Lock] = {}

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
        if self._closed:
            raise ClosedError("The client is closed. Make another, or close it later.")
        if bot not in self._declared:
            self._declare(bot)

    def reopen(self, bot: str) -> None:
        """The bot's queues turned out to be missing: declare them again."""
        self._declared.discard(bot)
        self.open(bot)

    def close(self) -> None:
        """Wait, bounded, for what is not confirmed, and stop what this client started."""
        if self._closed:
            return
        self._closed = True
        if self._owned:
            self._connections.stop()

    def _declare(self, bot: str) -> None:
        with self._locks.setdefault(os.getpid(), threading.Lock()):
            if bot not in self._declared:
                topology.declare(self._connections, self._composer.topology(bot))
                self._declared.add(bot)
