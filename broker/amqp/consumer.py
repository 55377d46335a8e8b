"""Consuming: one channel per queue, a window of unsettled messages per queue.

Overview. A subscription consumes one queue with the consumer priority that rendezvous hashing gives this worker for it
(:mod:`floodgate.broker.messages.partitions`), so that RabbitMQ makes the right worker the active consumer. Deliveries
are handed to ``on_delivery`` on the event loop; their ``ack`` and ``requeue`` may be called from any thread. The window
(AMQP's prefetch) is one message where jobs are sent in order; answers to queries, which have none, handlers of updates
and threads take more.

Channel incarnations. Delivery tags count from 1 on each channel, so an ack that is late for its channel would hit
another message on the next one. A delivery keeps the channel it came on, and is settled there or nowhere: when that
channel is gone, RabbitMQ has put the message back already.

Hand-over. A queue is handed over by closing its channel, after what is in hand is settled. Never by ``basic.cancel``:
the next consumer would start at once, and message n+1 overtake n, which is still out. pika's ``Channel.close`` cancels
its consumers first, so they are taken from it before.

Acks. RabbitMQ's channel has at most 33 commands under way to a quorum queue and loses the rest when it closes
(:mod:`floodgate.broker.amqp.async_queue_reader`), and it returns more than 32 messages of one consumer in no order. So
no window is larger than :data:`MOST_PREFETCHED`.

State of a subscription, all on the loop: ``_wanted`` (shall it consume?), ``_channel`` (the current incarnation),
``_in_hand`` (the unsettled deliveries). When the channel dies by itself, the subscription opens another, after a pause
that doubles:

    connection lost            when the connection is back
    404, queue missing         its queue is declared again first
    server-side cancel         the queue was deleted or its leader went: as 404
    406 and others             logged, then reopened
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Awaitable, Callable
from typing import Any, Final

import pika.exceptions

from floodgate.broker.amqp.connection import Connection, ConnectionState
from floodgate.broker.errors import RabbitMQError
from floodgate.broker.messages.partitions import rendezvous_score
from floodgate.broker.process.event_loop import BorrowedLoop
from floodgate.broker.process.outages import Backoff

logger = logging.getLogger("floodgate.rabbitmq")

PREFETCH: Final = 1
ANSWERS_PREFETCH: Final = 16  # of a bot: with calls of half a second, 32 answers a second
MOST_PREFETCHED: Final = 32  # RabbitMQ returns so many of one consumer in their order
FIRST_PAUSE_SECONDS: Final = 0.2
LONGEST_PAUSE_SECONDS: Final = 15.0
# RabbitMQ grants 2047 channels a connection; some are left for declaring and the like.
MOST_SUBSCRIPTIONS: Final = 2000
# basic.ack, and basic.nack with requeue, as the bytes that pika would make of them in ten times the time.
_ACK: Final = struct.Struct(">BHIHHQBB")


class Delivery:
    """One message in hand. Settled once, by ``ack`` or ``requeue``, from any thread; more calls do
    nothing."""

    __slots__ = (
        "_channel",
        "_settled",
        "_subscription",
        "_tag",
        "body",
        "delivery_count",
        "headers",
        "message_id",
        "priority",
        "queue",
        "redelivered",
    )

    def __init__(self, subscription: Subscription, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        self.queue = subscription.queue
        self.body = body
        self.message_id: str | None = properties.message_id
        self.headers: dict[str, Any] = properties.headers or {}
        self.priority: int = properties.priority or 0
        self.redelivered: bool = method.redelivered
        self.delivery_count = int(self.headers.get("x-acquired-count") or self.headers.get("x-delivery-count") or 0)
        """How often it was with a consumer before. RabbitMQ 4.3 has the first header, older ones the second only."""
        self._subscription = subscription
        self._channel = channel
        self._tag: int = method.delivery_tag
        self._settled = False

    @property
    def live(self) -> bool:
        """Whether it can still be settled: its channel is open. A dead one is in its queue again, or with
        someone else."""
        return not self._settled and self._subscription.is_current(self._channel)

    def ack(self) -> None:
        """The message is dealt with; RabbitMQ forgets it."""
        self._settle(80, 0)

    def requeue(self) -> None:
        """Back to its queue, to the place it had. RabbitMQ before 4.3 counts it towards the delivery
        limit."""
        self._settle(120, 2)

    def put_down(self) -> None:
        """Leave it unsettled while the queue is being handed over: it returns with the channel, in order."""
        if not self._settled:
            self._settled = True
            self._subscription.settle(self, self._channel, b"")

    def _settle(self, method: int, bits: int) -> None:
        """``method`` and ``bits`` are of AMQP's basic class: ack, or nack with requeue."""
        if not self._settled:
            self._settled = True
            channel = self._channel
            frame = _ACK.pack(1, channel.channel_number, 13, 60, method, self._tag, bits, 0xCE)
            self._subscription.settle(self, channel, frame)


class Subscription:
    """One consumed queue. Methods may be called from any thread and do not wait."""

    def __init__(
        self,
        group: Subscriptions,
        queue: str,
        worker_id: str,
        on_delivery: Callable[[Delivery], None],
        on_lost: Callable[[], None] | None = None,
        prefetch: int = PREFETCH,
    ) -> None:
        self.queue = queue
        self._prefetch = prefetch
        self._group = group
        self._score = rendezvous_score(worker_id, queue)
        self._tag = f"{worker_id[:80]}.{queue}"
        self._on_delivery = on_delivery
        self._on_lost = on_lost
        self._wanted = True
        self._channel: Any = None
        self._in_hand: set[Delivery] = set()
        self._declined: list[Delivery] = []  # came after the end of the wish for more; return with the channel
        self.backoff = Backoff(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)
        self._resume_timer: Any = None

    def drain(self) -> None:
        """Take nothing more; hand the queue over as soon as nothing is in hand."""
        self._soon(self._leave)

    def suspend(self, seconds: float) -> None:
        """:meth:`drain`, and come back after a while."""

        def leave_for_a_while() -> None:
            if self._wanted:
                self._leave()
                self._resume_timer = self._group.io.call_later(seconds, self._enter)

        self._soon(leave_for_a_while)

    def resume(self) -> None:
        """Take messages again, after :meth:`drain` or :meth:`suspend`."""
        self._soon(self._enter)

    def close(self) -> None:
        """Hand the queue over at once; what is in hand goes back to it."""
        self._soon(self._end)

    def settle(self, delivery: Delivery, channel: Any, frame: bytes) -> None:
        """For :class:`Delivery`: send the frame that settles it."""
        if self._group.io.is_current:
            self._settle(delivery, channel, frame)
        else:
            self._soon(lambda: self._settle(delivery, channel, frame))

    def is_current(self, channel: Any) -> bool:
        """Whether this is the channel in use, as far as another thread can know."""
        return channel is self._channel

    def _soon(self, call: Callable[[], None]) -> None:
        self._group.io.call_soon(call)

    # On the event loop, from here to the end.

    def open(self) -> None:
        if self._wanted and self._channel is None and self._group.connection.state is ConnectionState.UP:
            self._channel = self._group.connection.pika_connection.channel(on_open_callback=self._on_channel_open)
            self._channel.add_on_close_callback(self._on_channel_closed)

    def lose(self) -> None:
        """The connection is gone, and with it the channel and what was in hand."""
        had, self._channel = self._channel, None
        self._drop_in_hand()
        if had is not None:
            self._tell_lost()

    def _tell_lost(self) -> None:
        if self._on_lost is not None:
            self._on_lost()

    def _on_channel_open(self, channel: Any) -> None:
        channel.add_on_cancel_callback(lambda _frame: self._on_cancel(channel))
        channel.basic_qos(prefetch_count=self._prefetch)
        channel.basic_consume(
            self.queue,
            self._on_message,
            consumer_tag=self._tag,
            arguments={"x-priority": self._score},
            callback=self._on_consuming,
        )

    def _on_consuming(self, _frame: Any) -> None:
        self.backoff.reset()

    def _on_message(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        if channel is self._channel:
            self._take(Delivery(self, channel, method, properties, body))

    def _take(self, delivery: Delivery) -> None:
        if not self._wanted:
            self._declined.append(delivery)
            return
        self._in_hand.add(delivery)
        self._on_delivery(delivery)

    def _settle(self, delivery: Delivery, channel: Any, frame: bytes) -> None:
        if channel is not self._channel or not channel.is_open:
            logger.debug("an answer for %s came after its channel was gone; the message is redelivered", self.queue)
            return
        if frame:
            self._group.connection.write(frame)
        self._in_hand.discard(delivery)
        if not self._wanted and not self._in_hand:
            self._close_channel()

    def _leave(self) -> None:
        self._wanted = False
        self._forget_timer()
        if not self._in_hand:
            self._close_channel()

    def _enter(self) -> None:
        self._forget_timer()
        self._wanted = True
        declined, self._declined = self._declined, []
        for delivery in declined:
            self._take(delivery)
        self.open()

    def _end(self) -> None:
        self._wanted = False
        self._forget_timer()
        self._close_channel()
        self._group.forget(self)

    def _forget_timer(self) -> None:
        if self._resume_timer is not None:
            self._resume_timer.cancel()
            self._resume_timer = None

    def _close_channel(self) -> None:
        channel, self._channel = self._channel, None
        self._drop_in_hand()
        if channel is not None and not (channel.is_closing or channel.is_closed):
            self._group.connection.flush()  # acks go before the close, or they would be void
            channel._consumers.clear()  # or pika would basic.cancel them: see "Hand-over"
            channel.close()

    def _drop_in_hand(self) -> None:
        self._in_hand.clear()
        self._declined.clear()

    def _on_cancel(self, channel: Any) -> None:
        if channel is self._channel:
            self._close_channel()
            self._tell_lost()
            self._group.restore(self, missing=True)

    def _on_channel_closed(self, channel: Any, reason: Exception) -> None:
        if channel is not self._channel:
            return  # closed by us, or with its connection
        self._channel = None
        self._drop_in_hand()
        self._tell_lost()
        if isinstance(reason, pika.exceptions.ChannelClosedByBroker):
            missing = reason.reply_code == 404
            if not missing:
                logger.warning("RabbitMQ closed the channel of %s: %s", self.queue, reason.reply_text)
            self._group.restore(self, missing=missing)


class Subscriptions:
    """The subscriptions on one connection. Everything but the constructor: on the event loop."""

    def __init__(self, io: BorrowedLoop, connection: Connection) -> None:
        self.io = io
        self.connection = connection
        self._members: dict[Subscription, Callable[[], Awaitable[None]]] = {}
        self._redeclaring: dict[Subscription, asyncio.Task[None]] = {}
        connection.follow(self._on_up, self._on_down)

    def add(self, subscription: Subscription, redeclare: Callable[[], Awaitable[None]]) -> None:
        """``redeclare`` makes a queue that is missing, and what belongs to it."""
        self._members[subscription] = redeclare
        self.connection.open()
        subscription.open()

    def forget(self, subscription: Subscription) -> None:
        self._members.pop(subscription, None)

    def close(self) -> None:
        for task in self._redeclaring.values():
            task.cancel()
        for subscription in list(self._members):
            subscription._end()

    def restore(self, subscription: Subscription, *, missing: bool) -> None:
        """Open again, after a pause; when its queue is missing, after declaring it."""
        reopen = self._redeclare_soon if missing else Subscription.open
        self.io.call_later(subscription.backoff.next_seconds(), lambda: reopen(subscription))

    def _redeclare_soon(self, subscription: Subscription) -> None:
        redeclare = self._members.get(subscription)
        if redeclare is None or subscription in self._redeclaring:
            return
        logger.warning("queue %s is gone; declaring it again", subscription.queue)
        task = self.io.loop.create_task(self._redeclare(subscription, redeclare), name=f"declare {subscription.queue}")
        self._redeclaring[subscription] = task
        task.add_done_callback(lambda _: self._redeclaring.pop(subscription, None))

    async def _redeclare(self, subscription: Subscription, redeclare: Callable[[], Awaitable[None]]) -> None:
        try:
            await redeclare()
        except RabbitMQError as error:
            logger.warning("queue %s could not be declared: %s", subscription.queue, error)
            self.restore(subscription, missing=True)
        else:
            subscription.open()

    def _on_up(self) -> None:
        for subscription in list(self._members):
            subscription.open()

    def _on_down(self, _error: RabbitMQError) -> None:
        for subscription in self._members:
            subscription.lose()
