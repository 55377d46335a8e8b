"""Retries of plain actors, without losing messages."""

from __future__ import annotations

from typing import Any

from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import Retries


class ConfirmedRetries(Retries):
    """Dramatiq's ``Retries``, acknowledging the original only after RabbitMQ has confirmed the retry.

    Dramatiq swallows exceptions of ``after_process_message`` and acknowledges anyway. Here a failed re-enqueue leaves
    the message not ``done``, so it returns to its queue. Not used for jobs and updates, whose failures are handled in
    ``actors/settle.py`` and ``actors/updates/handling.py``.
    """

    def after_process_message(
        self, broker: Broker, message: MessageProxy, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        super().after_process_message(  # type: ignore[no-untyped-call]  # Dramatiq's
            broker, message, result=result, exception=exception
        )
        if exception is not None:
            message.done()
