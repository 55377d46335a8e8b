"""Middleware whose hooks are coroutines.

When messages are processed on an event loop, a hook that must wait (for a permit, for a connection to open) cannot do
so in Dramatiq's synchronous methods. It is therefore a coroutine on the broker's loop: our runner awaits it, and under
Dramatiq's own command line a worker thread blocks on the same coroutine.
"""

from __future__ import annotations

from typing import Protocol, cast

from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import Middleware
from dramatiq.worker import Worker

from floodgate.broker.amqp.connections import Connections
from floodgate.broker.process.metrics import Metrics
from floodgate.broker.process.stopping import Stopping
from floodgate.broker.settings.model import Settings
from floodgate.broker.state.calls import BatchedAdmission
from floodgate.broker.worker.queue_consumer import DeliveredMessage


class HostBroker(Protocol):
    """The parts of ``FloodgateBroker`` that middleware hooks use."""

    stopping: Stopping
    metrics: Metrics

    @property
    def settings(self) -> Settings:
        """The broker's settings."""
        ...

    @property
    def connections(self) -> Connections:
        """The broker's connections."""
        ...

    @property
    def admission(self) -> BatchedAdmission:
        """The admission that all workers share."""
        ...

    def takes(self, actor_name: str) -> bool:
        """Return whether an actor of this name takes jobs or updates."""
        ...

    def suspend(self, queue_name: str, seconds: float) -> None:
        """Take no more messages from a queue for some seconds."""
        ...


class RunsOnLoop(Middleware):
    """Base class of middleware whose plain hooks neither block nor compute: our runner calls them on the event loop."""


class AwaitedMiddleware(Middleware):
    """Base class of middleware with coroutine hooks.

    Override the methods whose names begin with ``a``. They run on the broker's event loop, under thread workers too.
    """

    def concerns(self, message: MessageProxy) -> bool:
        """Whether ``abefore_process_message`` is to be called for a message. Other messages skip the event loop."""
        return False

    async def abefore_worker_boot(self, broker: HostBroker) -> None:
        """Called before the first message."""

    async def abefore_process_message(self, broker: HostBroker, message: DeliveredMessage) -> None:
        """Called before each message for which :meth:`concerns` is true. A ``MiddlewareError`` keeps its actor from
        running."""

    async def aafter_worker_shutdown(self, broker: HostBroker) -> None:
        """Called after the last message, even if the worker never booted."""

    def before_worker_boot(self, broker: Broker, worker: Worker) -> None:
        """Run :meth:`abefore_worker_boot` on the broker's event loop and wait for it."""
        ours = cast("HostBroker", broker)
        ours.connections.io.run(self.abefore_worker_boot(ours), None)

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        """Run :meth:`abefore_process_message` on the broker's event loop and wait for it."""
        if self.concerns(message):
            ours = cast("HostBroker", broker)
            ours.connections.io.run(self.abefore_process_message(ours, cast("DeliveredMessage", message)), None)

    def after_worker_shutdown(self, broker: Broker, worker: Worker) -> None:
        """Run :meth:`aafter_worker_shutdown` on the broker's event loop and wait for it."""
        ours = cast("HostBroker", broker)
        ours.connections.io.run(self.aafter_worker_shutdown(ours), None)
