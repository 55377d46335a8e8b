"""Traces deliveries of jobs, as Dramatiq middleware. A process without traces does not have it."""

from __future__ import annotations

from typing import Any

from dramatiq.broker import Broker, MessageProxy
from dramatiq.errors import RateLimitExceeded

from floodgate.broker.process.spans import Tracing
from floodgate.broker.worker.middleware.awaited import RunsOnLoop
from floodgate.broker.worker.queue_consumer import DeliveredMessage


class JobTraces(RunsOnLoop):
    """Begins a trace before admission, and ends it once the delivery has been dealt with."""

    def __init__(self, tracing: Tracing) -> None:
        self._tracing = tracing

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        if isinstance(message, DeliveredMessage) and message.job is not None:
            message.trace = self._tracing.job(message.job, message.queue_name, message.delivery.headers)

    def after_process_message(
        self, broker: Broker, message: MessageProxy, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        if isinstance(message, DeliveredMessage):
            if exception is not None and not isinstance(exception, RateLimitExceeded):
                message.trace.outcome("failed", (type(exception).__name__, ""))
            message.trace.end()

    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:
        self.after_process_message(broker, message)
