"""Middleware whose hooks are coroutines.

When messages are processed on an event loop, Dramatiq's plain methods cannot wait, for instance for a permit or a
connection. So such a hook is written once as a coroutine of the broker's loop: our runner awaits it, and under
Dramatiq's own command line a worker thread blocks on the same coroutine.
"""

from __future__ import annotations

from typing import Protocol, cast

from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import Middleware
from dramatiq.worker import Worker

from floodgate.broker.amqp.connections import Connections
from floodgate.broker.process.stopping import Stopping
from floodgate.broker.settings.model import Settings
from floodgate.broker.state.calls import BatchedAdmission
from floodgate.broker.worker.queue_consumer import DeliveredMessage


class HostBroker(Protocol):
    """The parts of ``FloodgateBroker`` that hooks use."""

    stopping: Stopping

    @property
    def settings(self) -> Settings: ...

    @property
    def connections(self) -> Connections: ...

    @property
    def admission(self) -> BatchedAdmission: ...

    def takes(self, actor_name: str) -> bool: ...

    def suspend(self, queue_name: str, seconds: float) -> None: ...


class AwaitedMiddleware(Middleware):
    """Base of middleware with async hooks: override the methods whose names begin with ``a``.

    They run on the broker's event loop, also in workers with threads.
    """

    def concerns(self, message: MessageProxy) -> bool:
        """Return whether ``abefore_process_message`` must be called for a message. For all others it costs nothing."""
        return False

    async def abefore_worker_boot(self, broker: HostBroker) -> None:
        """Called before the first message."""

    async def abefore_process_message(self, broker: HostBroker, message: DeliveredMessage) -> None:
        """Called before each message that :meth:`concerns` selects. A ``MiddlewareError`` stops its actor."""

    async def aafter_worker_shutdown(self, broker: HostBroker) -> None:
        """Called after the last message. Must be safe to call without any message."""

    def before_worker_boot(self, broker: Broker, worker: Worker) -> None:
        ours = cast("HostBroker", broker)
        ours.connections.io.run(self.abefore_worker_boot(ours), None)

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        if self.concerns(message):
            ours = cast("HostBroker", broker)
            ours.connections.io.run(self.abefore_process_message(ours, cast("DeliveredMessage", message)), None)

    def after_worker_shutdown(self, broker: Broker, worker: Worker) -> None:
        ours = cast("HostBroker", broker)
        ours.connections.io.run(self.aafter_worker_shutdown(ours), None)
