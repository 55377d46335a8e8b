"""A message to publish, and its bytes on the wire.

The frames of a publication are put together here, in the caller's thread, not by pika in the I/O thread: that
thread is shared by all callers, and then only has to join what is ready and write it. What a publication
always is stands here too: persistent (``delivery_mode`` 2), ``mandatory``, JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

# RabbitMQ 4.0-4.2 knows two classes: 0-4 and 5 up.
FRESH_PRIORITY: Final = 4
HIGH_PRIORITY: Final = 9


@dataclass(frozen=True, slots=True)
class Publication:
    """One message. ``headers`` may hold what an AMQP table can: str, int, bool, and lists and dicts of
    them."""

    exchange: str
    routing_key: str
    body: bytes
    message_id: str
    priority: int = FRESH_PRIORITY
    headers: Mapping[str, Any] | None = None
