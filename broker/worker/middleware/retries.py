"""Retries of plain actors that cannot lose the message."""

from __future__ import annotations

from typing import Any

from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import Retries


class ConfirmedRetries(Retries):
    """Dramatiq's ``Retries``, with the original acknowledged only once RabbitMQ has confirmed its successor.

    Dramatiq swallows what ``after_process_message`` raises and acknowledges all the same. Here a failed re-enqueue
    leaves the message without the word ``done``, and it goes back to its queue. Jobs and updates never come here: what
    follows from a failure is decided where it is known (``actors/settle.py``, ``actors/updates/handling.py``).
    """

    def after_process_message(
        self, broker: Broker, message: MessageProxy, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        super().after_process_message(  # type: ignore[no-untyped-call]  # Dramatiq's
            broker, message, result=result, exception=exception
        )
        if exception is not None:
            message.done()
