"""A message to publish. :mod:`floodgate.broker.amqp.frames` encodes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

# RabbitMQ 4.0-4.2 has two classes of priority: 0-4, and 5 or more.
FRESH_PRIORITY: Final = 4
HIGH_PRIORITY: Final = 9


@dataclass(frozen=True, slots=True)
class Publication:
    """One message. ``headers`` may contain str, int, bool, and lists and dicts of them, as in an AMQP table."""

    exchange: str
    routing_key: str
    body: bytes
    message_id: str
    priority: int = FRESH_PRIORITY
    headers: Mapping[str, Any] | None = None
