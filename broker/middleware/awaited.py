"""Middleware whose hooks are coroutines.

A hook that must wait (for a permit, for a connection to open) cannot do so in Dramatiq's plain methods when messages
are processed on an event loop. So it is written once as a coroutine of the broker's loop: our runner awaits it, and
under Dramatiq's own command line a worker thread blocks on the very same coroutine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import Middleware
from dramatiq.worker import Worker

if TYPE_CHECKING:
    from floodgate.broker.dramatiq_broker import FloodgateBroker
    from floodgate.broker.dramatiq_consumer import DeliveredMessage


class AwaitedMiddleware(Middleware):
    """Override the methods that begin with ``a``. They run on the broker's event loop, also under thread workers."""

    def concerns(self, message: MessageProxy) -> bool:
        """Whether ``abefore_process_message`` has anything to do for a message: what is not concerned costs nothing."""
        return False

    async def abefore_worker_boot(self, broker: FloodgateBroker) -> None:
        """Before the first message."""

    async def abefore_process_message(self, broker: FloodgateBroker, message: DeliveredMessage) -> None:
        """Before a message that :meth:`concerns` it. A ``MiddlewareError`` keeps its actor from running."""

    async def aafter_worker_shutdown(self, broker: FloodgateBroker) -> None:
        """After the last message. Safe to call unopened."""

    def before_worker_boot(self, broker: Broker, worker: Worker) -> None:
        ours = cast("FloodgateBroker", broker)
        ours.connections.io.run(self.abefore_worker_boot(ours), None)

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        if self.concerns(message):
            ours = cast("FloodgateBroker", broker)
            ours.connections.io.run(self.abefore_process_message(ours, cast("DeliveredMessage", message)), None)

    def after_worker_shutdown(self, broker: Broker, worker: Worker) -> None:
        ours = cast("FloodgateBroker", broker)
        ours.connections.io.run(self.aafter_worker_shutdown(ours), None)
