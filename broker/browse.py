"""Looking at a queue without taking from it: read by ``basic.get``, then given back all at once.

Everything goes back to its place, in a queue with a delivery limit; without one, it would go to the end. A
look counts as a delivery, which is why that limit is beyond reach for dead-letter queues. While one looks,
what he has read is hidden from the next.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from pika.spec import Basic

from broker.channel_script import ChannelRefusedError, Script, Session
from broker.connections import Connections

BROWSE_SECONDS: Final = 120.0  # bound on one look; 100,000 messages take about 20 s
ALL: Final = 0  # the delivery tag that stands for every unanswered message
_NOT_FOUND: Final = 404


@dataclass(frozen=True, slots=True)
class Seen:
    """A message as it lies in its queue."""

    message_id: str | None
    headers: Mapping[str, Any]
    body: bytes
    tag: int = 0
    """RabbitMQ's number for this delivery, while the channel lasts on which it was read."""


def browse(connections: Connections, queue: str, limit: int) -> list[Seen]:
    """The first ``limit`` messages of a queue, which stay there; none if there is no such queue.

    Raises:
        RabbitMQUnreachableError: there is no server to ask.
    """
    return connections.run(partial(_browse, queue, limit), BROWSE_SECONDS)


def _browse(queue: str, limit: int, session: Session) -> Script[list[Seen]]:
    getter = Getter((yield from session.channel()), queue)
    seen: list[Seen] = []
    try:
        while len(seen) < limit and (one := (yield getter.get)) is not None:
            seen.append(one)
        getter.give_back()
    except ChannelRefusedError as refusal:
        if refusal.code != _NOT_FOUND:
            raise
    return seen


class Getter:
    """``basic.get`` with one callback for both its answers; pika gives "empty" to nobody."""

    def __init__(self, channel: Any, queue: str) -> None:
        self._channel = channel
        self._queue = queue
        self._callback: Callable[[Seen | None], None] | None = None
        channel.add_callback(lambda _: self._answer(None), [Basic.GetEmpty], one_shot=False)

    def get(self, *, callback: Callable[[Seen | None], None]) -> None:
        self._callback = callback
        self._channel.basic_get(self._queue, self._on_message)

    def give_back(self) -> None:
        """All that was read. Closing the channel would do it, too, but some time after the server says that
        it is closed."""
        self._channel.basic_nack(ALL, multiple=True, requeue=True)

    def remove(self, message: Seen) -> None:
        """Take a message away for good."""
        self._channel.basic_ack(message.tag)

    def _on_message(self, _channel: Any, method: Any, properties: Any, body: bytes) -> None:
        self._answer(Seen(properties.message_id, properties.headers or {}, body, method.delivery_tag))

    def _answer(self, seen: Seen | None) -> None:
        if self._callback is not None:
            self._callback(seen)
