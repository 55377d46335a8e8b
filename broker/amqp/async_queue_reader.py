"""Looking at a queue without taking from it: read by ``basic.get``, then given back.

Everything goes back to its place, in a queue with a delivery limit; without one, it would go to the end. A
look counts as a delivery, which is why that limit is beyond reach for dead-letter queues. While one looks,
what he has read is hidden from the next.

Answers go a few at a time. A channel has at most 33 commands under way to a quorum queue, and one for each message
read by ``basic.get``, ``multiple`` or not. Further ones it collects in a map until the queue has carried out some,
which takes a write to disk; and the map has no order, and a channel that is closed takes it along. So a hundred
messages given back at once came back shuffled, all but the first 33; and of fifty acknowledged at once before a
close, 17 came back. Hence the queue is waited for after each few: for its length, where messages are given back, and
where they are removed, by reading one more, since such a read is a command itself, answered after all before it are
carried out. When a channel ends by itself, with its connection or by a crash of the process, what it held comes back
shuffled; whoever needs an order then has to sort. (Read in 4.1's source, tried on 4.0.5 and 4.3.6.)
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

BROWSE_SECONDS: Final = 120.0  # bound on one look; 100,000 messages take about 20 s
FEW: Final = 16  # messages answered at once: two times that is still under 33, should a length mislead
MOST_LOOKS: Final = 1000  # at a queue's length; each takes some 0.3 ms


@dataclass(frozen=True, slots=True)
class QueuedMessage:
    """A message as it lies in its queue."""

    message_id: str | None
    headers: Mapping[str, Any]
    body: bytes
    tag: int = 0
    """RabbitMQ's number for this delivery, while the channel lasts on which it was read."""


def browse(connections: Connections, queue: str, limit: int) -> list[QueuedMessage]:
    """The first ``limit`` messages of a queue, which stay there; none if there is no such queue.

    Raises:
        RabbitMQUnreachableError: there is no server to ask.
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
    """A queue's messages read one by one, each held until it is removed or given back. Belongs to the event loop."""

    def __init__(self, channel: Channel, queue: str) -> None:
        self._channel = channel
        self._queue = queue
        self._held: dict[int, None] = {}  # tags in order
        self._ahead: deque[QueuedMessage] = deque()  # held and not taken yet: one for each few removed, at most
        # One answer of two: pika tells "empty" to nobody.
        channel.raw.add_callback(lambda _: channel.resolve(None), [Basic.GetEmpty], one_shot=False)

    async def take(self, most: int) -> list[QueuedMessage]:
        """The next messages, in order; fewer at the end of the queue."""
        seen: list[QueuedMessage] = []
        while len(seen) < most and (one := self._ahead.popleft() if self._ahead else await self._get()) is not None:
            seen.append(one)
        return seen

    async def give_back(self) -> None:
        """All that was read and not removed, to its place."""
        tags = list(self._held)
        self._held.clear()
        self._ahead.clear()
        for start in range(0, len(tags), FEW):
            few = tags[start : start + FEW]
            ready = await self.ready()
            self._channel.raw.basic_nack(few[-1], multiple=True, requeue=True)
            for _ in range(MOST_LOOKS):  # or another reader has taken them at once
                if await self.ready() >= ready + len(few):
                    break

    async def ready(self) -> int:
        """How many messages nobody holds."""
        ok = await self._channel.call("queue_declare", queue=self._queue, passive=True)
        return int(ok.method.message_count)

    async def remove(self, messages: Sequence[QueuedMessage]) -> None:
        """Take messages away for good; ends when they are."""
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
