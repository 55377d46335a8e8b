"""Reads a queue with ``basic.get``; each message is removed or returned to its place.

Messages return to their places only in a queue with a delivery limit; without one they would go to the end. Reading
counts as a delivery, so dead-letter queues have a limit that is never reached. Messages being read are hidden from
other readers.

Acks and returns are sent in small batches. A channel has at most 33 commands in flight to a quorum queue, one for each
message read by ``basic.get``, with or without ``multiple``. It collects further commands in a map until the queue has
executed some, which takes a write to disk. The map is unordered, and it is lost when the channel closes. So of a
hundred messages returned at once, all but the first 33 came back shuffled; and of fifty acknowledged at once before a
close, 17 came back. Hence the reader waits for the queue after each batch: after returning messages, for the queue's
length; after removing messages, by reading one more, since such a read is itself a command, answered after all earlier
ones are executed. When a channel ends with its connection or by a crash of the process, the messages it held come back
shuffled, and a reader that needs their order must sort them. (Found in the source of 4.1, tested on 4.0.5 and 4.3.6.)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from pika.spec import Basic

from floodgate.broker.amqp.connections import Connections
from floodgate.broker.amqp.session import Channel, MissingQueueError, Session

BROWSE_SECONDS: Final = 120.0  # bound on one browse; 100,000 messages take about 20 s
FEW: Final = 16  # messages per batch: twice that is still below 33, in case the queue's length misleads
MOST_LOOKS: Final = 1000  # checks of a queue's length; each takes some 0.3 ms


@dataclass(frozen=True, slots=True)
class QueuedMessage:
    """A message in a queue."""

    message_id: str | None
    headers: Mapping[str, Any]
    body: bytes
    tag: int = 0
    """RabbitMQ's delivery tag, valid on the channel on which the message was read."""


def browse(connections: Connections, queue: str, limit: int) -> list[QueuedMessage]:
    """Return the first ``limit`` messages of a queue, which stay in it; none if the queue does not exist.

    Raises:
        RabbitMQUnreachableError: no server can be reached.
    """
    return connections.run(partial(_browse, queue, limit), BROWSE_SECONDS)


async def _browse(queue: str, limit: int, session: Session) -> list[QueuedMessage]:
    reader = AsyncQueueReader(await session.channel(), queue)
    seen: list[QueuedMessage] = []
    with suppress(MissingQueueError):
        seen += await reader.take(limit)
        await reader.give_back()
    return seen


class AsyncQueueReader:
    """Reads a queue's messages one by one, and holds each until it is removed or returned. On the event loop only."""

    def __init__(self, channel: Channel, queue: str) -> None:
        self._channel = channel
        self._queue = queue
        self._held: dict[int, None] = {}  # tags in order
        self._ahead: deque[QueuedMessage] = deque()  # held and not taken yet: at most one per batch removed
        # pika calls no callback when the queue is empty.
        channel.raw.add_callback(lambda _: channel.resolve(None), [Basic.GetEmpty], one_shot=False)

    async def take(self, most: int) -> list[QueuedMessage]:
        """Return the next messages, in order; fewer than ``most`` at the end of the queue."""
        seen: list[QueuedMessage] = []
        while len(seen) < most and (one := self._ahead.popleft() if self._ahead else await self._get()) is not None:
            seen.append(one)
        return seen

    async def give_back(self) -> None:
        """Return all messages that were read and not removed to their places."""
        tags = list(self._held)
        self._held.clear()
        self._ahead.clear()
        for start in range(0, len(tags), FEW):
            few = tags[start : start + FEW]
            ready = await self.ready()
            self._channel.raw.basic_nack(few[-1], multiple=True, requeue=True)
            for _ in range(MOST_LOOKS):  # bounded, since another reader may take them at once
                if await self.ready() >= ready + len(few):
                    break

    async def ready(self) -> int:
        """Return the number of messages that no consumer or reader holds."""
        ok = await self._channel.call("queue_declare", queue=self._queue, passive=True)
        return int(ok.method.message_count)

    async def remove(self, messages: Sequence[QueuedMessage]) -> None:
        """Remove messages for good. Returns once RabbitMQ has removed them."""
        for start in range(0, len(messages), FEW):
            for message in messages[start : start + FEW]:
                del self._held[message.tag]
                self._channel.raw.basic_ack(message.tag)
            if (one := await self._get()) is not None:
                self._ahead.append(one)

    async def _get(self) -> QueuedMessage | None:
        answer = self._channel.expect()
        self._channel.raw.basic_get(self._queue, self._on_message)
        seen: QueuedMessage | None = await answer
        return seen

    def _on_message(self, _channel: Any, method: Any, properties: Any, body: bytes) -> None:
        self._held[method.delivery_tag] = None
        self._channel.resolve(QueuedMessage(properties.message_id, properties.headers or {}, body, method.delivery_tag))
