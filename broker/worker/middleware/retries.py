"""Retries for plain actors that cannot lose messages."""

from __future__ import annotations

from typing import Any

from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import Retries


class ConfirmedRetries(Retries):
    """Dramatiq's ``Retries``, but acknowledges the original only once RabbitMQ has confirmed its successor.

    Dramatiq swallows exceptions of ``after_process_message`` and acknowledges anyway. Here a message whose re-enqueue
    failed is never marked ``done``, so it returns to its queue. Jobs and updates do not use this middleware: their
    retries are decided in ``actors/settle.py`` and ``actors/updates/handling.py``.
    """

    def after_process_message(
        self, broker: Broker, message: MessageProxy, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        super().after_process_message(  # type: ignore[no-untyped-call]  # Dramatiq's
            broker, message, result=result, exception=exception
        )
        if exception is not None:
            message.done()
