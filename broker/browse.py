"""Looking at a queue without taking from it: read by ``basic.get``, then given back.

Everything goes back to its place, in a queue with a delivery limit; without one, it would go to the end. A
look counts as a delivery, which is why that limit is beyond reach for dead-letter queues. While one looks,
what he has read is hidden from the next.

It is given back a few at a time. Beyond 32 commands under way to a quorum queue, a channel collects further ones in a
map, whose order is none: a hundred messages given back at once come back shuffled, all but the first 33. So the queue's
length is awaited after each few. When a channel ends by itself, with its connection or by a crash of the process, what
it held comes back shuffled likewise; whoever needs an order then has to sort. (Tried on 4.0.5.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from pika.spec import Basic

from broker.channel_script import ChannelRefusedError, Script, Session
from broker.connections import Connections

BROWSE_SECONDS: Final = 120.0  # bound on one look; 100,000 messages take about 20 s
FEW: Final = 16  # messages given back at once: two times that is still in order, should a length mislead
MOST_LOOKS: Final = 1000  # at a queue's length; each takes some 0.3 ms
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
        yield from getter.give_back()
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
        self._held: dict[int, None] = {}  # tags in order
        channel.add_callback(lambda _: self._answer(None), [Basic.GetEmpty], one_shot=False)

    def get(self, *, callback: Callable[[Seen | None], None]) -> None:
        self._callback = callback
        self._channel.basic_get(self._queue, self._on_message)

    def give_back(self) -> Script[None]:
        """All that was read and not removed, to its place."""
        tags = list(self._held)
        self._held.clear()
        for start in range(0, len(tags), FEW):
            few = tags[start : start + FEW]
            ready = yield from self._ready()
            self._channel.basic_nack(few[-1], multiple=True, requeue=True)
            for _ in range(MOST_LOOKS):  # or another visitor has taken them at once
                if (yield from self._ready()) >= ready + len(few):
                    break

    def _ready(self) -> Script[int]:
        """How many messages nobody holds."""
        ok = yield partial(self._channel.queue_declare, queue=self._queue, passive=True)
        return int(ok.method.message_count)

    def remove(self, messages: Sequence[Seen]) -> Script[None]:
        """Take messages away for good: a few at a time, in one ack where none before them stays, each few followed by
        a question to the queue.

        RabbitMQ keeps acks that a busy quorum queue has not taken yet with the channel, and a channel that is closed
        then seems to take them with it: 17 of 250 single acks came to nothing on 4.0.5, twice in some ten runs.
        """
        for start in range(0, len(messages), FEW):
            tags = [message.tag for message in messages[start : start + FEW]]
            for tag in tags:
                del self._held[tag]
            if next(iter(self._held), max(tags) + 1) > max(tags):
                self._channel.basic_ack(max(tags), multiple=True)
            else:
                for tag in tags:
                    self._channel.basic_ack(tag)
            yield from self._ready()

    def _on_message(self, _channel: Any, method: Any, properties: Any, body: bytes) -> None:
        self._held[method.delivery_tag] = None
        self._answer(Seen(properties.message_id, properties.headers or {}, body, method.delivery_tag))

    def _answer(self, seen: Seen | None) -> None:
        if self._callback is not None:
            self._callback(seen)
