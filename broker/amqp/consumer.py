"""Consuming: one channel per queue, with a window of unsettled messages.

Overview. A subscription consumes one queue with the consumer priority that rendezvous hashing gives this worker
(:mod:`floodgate.broker.messages.partitions`), so that RabbitMQ makes the right worker the active consumer. Deliveries
are passed to ``on_delivery`` on the event loop; their ``ack`` and ``requeue`` may be called from any thread. The window
(AMQP's prefetch) is one message where jobs are sent in order, and larger for answers to queries, which are unordered,
for handlers of updates and for worker threads.

Channel incarnations. Delivery tags count from 1 on each channel, so a late ack sent on the next channel would
acknowledge a different message. A delivery keeps its channel and can only be settled there: once that channel is
closed, RabbitMQ has already requeued the message.

Hand-over. A queue is handed over by closing its channel after all unsettled messages are settled. Never by
``basic.cancel``: the next consumer would start at once, and message n+1 would overtake the unsettled n. pika's
``Channel.close`` cancels its consumers first, so they are removed from it beforehand.

Requeueing. RabbitMQ before 4.1.2 forgets a queue whose active consumer requeues its last message while one of higher
priority waits: neither gets another message. So there the last message is returned by closing the channel, and another
is opened. (Corrected by RabbitMQ's change dd6fd0c8, "fix SAC activation bug for returns and requeues".)

Standstill. RabbitMQ has other ways to leave a consumer without messages: for example, 4.0.5 may lose an ack when the
leader of a queue changes (corrected by its change d31b9aa8). A subscription that has nothing in hand, and whose queue
has had messages for :data:`STANDSTILL_SECONDS` without giving any to anybody, is opened again; if that does not help,
after pauses that double up to :data:`LONGEST_STANDSTILL_SECONDS`. It may be that another worker is the active consumer
and waits: then nothing changes, because a consumer that is not active holds nothing. How many messages wait is asked
for by :mod:`floodgate.broker.amqp.liveness`: of five queues a second in turn, and of those that may stand still.

Acks. RabbitMQ's channel has at most 33 commands in flight to a quorum queue and loses the rest when it closes
(:mod:`floodgate.broker.amqp.async_queue_reader`), and it requeues more than 32 messages of one consumer in no order.
So no window is larger than :data:`MOST_PREFETCHED`.

State of a subscription, all on the loop: ``_wanted`` (whether it should consume), ``_channel`` (the current
incarnation), ``_in_hand`` (the unsettled deliveries). When the channel closes unexpectedly, the subscription opens
another, after a pause that doubles:

    connection lost            when the connection is back
    404, queue missing         after its queue has been declared again
    server-side cancel         as for 404: the queue was deleted or lost its leader
    406 and others             logged, then reopened
"""

from __future__ import annotations

import asyncio
import logging
import struct
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import pika.exceptions

from floodgate.broker.amqp.connection import Connection, ConnectionState
from floodgate.broker.errors import RabbitMQError
from floodgate.broker.messages.partitions import rendezvous_score
from floodgate.broker.messages.trace_context import carried
from floodgate.broker.process.event_loop import BorrowedLoop
from floodgate.broker.process.outages import Backoff

logger = logging.getLogger("floodgate.rabbitmq")

PREFETCH: Final = 1
ANSWERS_PREFETCH: Final = 16  # per bot: 32 answers a second if a call takes half a second
MOST_PREFETCHED: Final = 32  # RabbitMQ requeues up to this many of one consumer in order
FIRST_PAUSE_SECONDS: Final = 0.2
LONGEST_PAUSE_SECONDS: Final = 15.0
STANDSTILL_SECONDS: Final = 10.0
LONGEST_STANDSTILL_SECONDS: Final = 300.0
REQUEUES_SAFELY: Final = (4, 1, 2)  # the first version of RabbitMQ to do so: see "Requeueing"
# RabbitMQ allows 2047 channels per connection; some remain for declaring and other short tasks.
MOST_SUBSCRIPTIONS: Final = 2000
# Encodes basic.ack, and basic.nack with requeue, ten times faster than pika.
_ACK: Final = struct.Struct(">BHIHHQBB")


class Delivery:
    """One message in hand. Settled once, by ``ack`` or ``requeue``, from any thread; further calls do nothing."""

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
        """How often it was delivered before. RabbitMQ 4.3 sends the first header, older versions only the second."""
        self._subscription = subscription
        self._channel = channel
        self._tag: int = method.delivery_tag
        self._settled = False

    @property
    def live(self) -> bool:
        """Whether it can still be settled, since its channel is open. If not, it is in its queue again, or given to
        another consumer."""
        return not self._settled and self._subscription.is_current(self._channel)

    @property
    def trace(self) -> Mapping[str, str] | None:
        """The trace that it belongs to, for the messages that follow from it."""
        return carried(self.headers)

    def ack(self) -> None:
        """Acknowledge the message: RabbitMQ deletes it."""
        self._settle(80, 0)

    def requeue(self) -> None:
        """Return the message to its place in the queue. RabbitMQ before 4.3 counts this towards the delivery limit."""
        self._settle(120, 2, returns=True)

    def put_down(self) -> None:
        """Leave it unsettled while the queue is being handed over: the closing channel requeues it in order."""
        if not self._settled:
            self._settled = True
            self._subscription.settle(self, self._channel, b"")

    def _settle(self, method: int, bits: int, *, returns: bool = False) -> None:
        """Settle with ``method`` and ``bits`` of AMQP's basic class: ack, or nack with requeue."""
        if not self._settled:
            self._settled = True
            channel = self._channel
            frame = _ACK.pack(1, channel.channel_number, 13, 60, method, self._tag, bits, 0xCE)
            self._subscription.settle(self, channel, frame, returns=returns)


class Subscription:
    """One consumed queue. Its public methods may be called from any thread and do not block."""

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
        self._consumed_on: Any = None  # the channel on which RabbitMQ has registered the consumer
        self._in_hand: set[Delivery] = set()
        self._declined: list[Delivery] = []  # arrived after `drain`; requeued when the channel closes
        self.backoff = Backoff(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)
        self._resume_timer: Any = None
        self._standstill = Standstill()

    def drain(self) -> None:
        """Accept no more messages, and hand the queue over as soon as all are settled."""
        self._soon(self._leave)

    def suspend(self, seconds: float) -> None:
        """Do the same as :meth:`drain`, and resume after so many seconds."""

        def leave_for_a_while() -> None:
            if self._wanted:
                self._leave()
                self._resume_timer = self._group.io.call_later(seconds, self._enter)

        self._soon(leave_for_a_while)

    def resume(self) -> None:
        """Accept messages again, after :meth:`drain` or :meth:`suspend`."""
        self._soon(self._enter)

    def close(self) -> None:
        """Hand the queue over at once; unsettled messages return to it."""
        self._soon(self._end)

    def settle(self, delivery: Delivery, channel: Any, frame: bytes, *, returns: bool = False) -> None:
        """Send the frame that settles a delivery; ``returns`` says that it requeues it. Called by :class:`Delivery`."""
        if self._group.io.is_current:
            self._settle(delivery, channel, frame, returns)
        else:
            self._soon(lambda: self._settle(delivery, channel, frame, returns))

    @property
    def is_consuming(self) -> bool:
        """Whether its channel is open. RabbitMQ decides whether this is the queue's active consumer."""
        return self._channel is not None and bool(self._channel.is_open)

    @property
    def is_registered(self) -> bool:
        """Whether RabbitMQ counts it among the queue's consumers. On the event loop."""
        return self._channel is not None and self._channel is self._consumed_on

    def is_current(self, channel: Any) -> bool:
        """Return whether this is the channel in use, as far as another thread can tell."""
        return channel is self._channel

    def _soon(self, call: Callable[[], None]) -> None:
        self._group.io.call_soon(call)

    # On the event loop, from here to the end.

    def open(self) -> None:
        """Open a channel and consume, if that is wanted and the connection is up."""
        if self._wanted and self._channel is None and self._group.connection.state is ConnectionState.UP:
            self._channel = self._group.connection.pika_connection.channel(on_open_callback=self._on_channel_open)
            self._channel.add_on_close_callback(self._on_channel_closed)

    def lose(self) -> None:
        """Drop the channel and the unsettled messages: the connection is lost."""
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
            callback=lambda _: self._on_consuming(channel),
        )

    def _on_consuming(self, channel: Any) -> None:
        self._consumed_on = channel
        self.backoff.reset()

    def _on_message(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        if channel is self._channel:
            self._take(Delivery(self, channel, method, properties, body))

    def _take(self, delivery: Delivery) -> None:
        if (stood_seconds := self._standstill.end()) is not None:
            logger.warning(
                "RabbitMQ delivers messages of %s again: it had delivered none for %.0f s, and did once this worker "
                "subscribed anew",
                *(self.queue, stood_seconds),
            )
        if not self._wanted:
            self._declined.append(delivery)
            return
        self._in_hand.add(delivery)
        self._on_delivery(delivery)

    def note_waiting(self, messages: int) -> bool:
        """Note how many messages wait in the queue. Opens the subscription again if it stands still.

        Returns:
            Whether it may stand still, so that the number is to be asked for again soon.
        """
        if not self.is_registered or not self._wanted or self._in_hand:
            self._standstill.end()
        elif (stood_seconds := self._standstill.judge(messages)) is not None:
            logger.info(
                "%d messages wait in %s, and for %.0f s this worker was given none: subscribing anew, in case RabbitMQ "
                "has lost track of its consumers",
                *(messages, self.queue, stood_seconds),
            )
            self._reopen()
        return self._standstill.suspected

    def _reopen(self) -> None:
        self._close_channel()
        self.open()

    def _settle(self, delivery: Delivery, channel: Any, frame: bytes, returns: bool) -> None:
        if channel is not self._channel or not channel.is_open:
            logger.debug("a message of %s was settled after its channel closed; it will be redelivered", self.queue)
            return
        self._in_hand.discard(delivery)
        if returns and self._wanted and not self._in_hand and self._group.connection.server_version < REQUEUES_SAFELY:
            self._reopen()
            return
        if frame:
            self._group.connection.write(frame)
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
            self._group.connection.flush()  # acks must be sent before the channel closes
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


class Standstill:
    """Whether a queue has messages and gives none. Belongs to one subscription with nothing in hand."""

    def __init__(self) -> None:
        self._patience = Backoff(STANDSTILL_SECONDS, LONGEST_STANDSTILL_SECONDS)
        self._bound_seconds = 0.0
        self._since: float | None = None  # when messages were first seen to wait, and none was taken since
        self._judged_at = 0.0  # when it last began, or was last reported
        self._waiting = 0
        self._reported = False

    @property
    def suspected(self) -> bool:
        """Whether messages wait, and none was taken since that was noted first."""
        return self._since is not None

    def judge(self, messages: int) -> float | None:
        """Note how many messages wait. Return for how many seconds none was taken, if it is time to act on it."""
        now = time.monotonic()
        if not messages or (self._since is not None and messages < self._waiting):
            self.end()
        elif self._since is None:
            self._since = self._judged_at = now
            self._bound_seconds = self._patience.next_seconds()
        elif now - self._judged_at >= self._bound_seconds:
            self._judged_at, self._reported = now, True
            self._bound_seconds = self._patience.next_seconds()
            return now - self._since
        self._waiting = messages
        return None

    def end(self) -> float | None:
        """Note that a message was taken. Return for how many seconds none was, if that had been reported."""
        stood_seconds = time.monotonic() - self._since if self._reported and self._since is not None else None
        if self._since is not None:
            self._since, self._reported = None, False
            self._patience.reset()
        return stood_seconds


class Subscriptions:
    """The subscriptions on one connection. All methods but the constructor must be called on the event loop."""

    def __init__(self, io: BorrowedLoop, connection: Connection) -> None:
        self.io = io
        self.connection = connection
        self._members: dict[Subscription, Callable[[], Awaitable[None]]] = {}
        self._redeclaring: dict[Subscription, asyncio.Task[None]] = {}
        connection.follow(self._on_up, self._on_down)

    def add(self, subscription: Subscription, redeclare: Callable[[], Awaitable[None]]) -> None:
        """Start a subscription. ``redeclare`` declares its queue, and everything the queue needs, if it is missing."""
        self._members[subscription] = redeclare
        self.connection.open()
        subscription.open()

    @property
    def consumed(self) -> list[str]:
        """The queues of which RabbitMQ has registered a consumer here."""
        return [member.queue for member in self._members if member.is_registered]

    def note_waiting(self, queue: str, messages: int) -> bool:
        """Note how many messages wait in a queue. Returns whether that is to be asked again soon."""
        member = next((member for member in self._members if member.queue == queue), None)
        return member is not None and member.note_waiting(messages)

    def forget(self, subscription: Subscription) -> None:
        """Remove a subscription that has ended."""
        self._members.pop(subscription, None)

    def close(self) -> None:
        """Hand all queues over at once."""
        for task in self._redeclaring.values():
            task.cancel()
        for subscription in list(self._members):
            subscription._end()

    def restore(self, subscription: Subscription, *, missing: bool) -> None:
        """Open a subscription again after a pause; if its queue is missing, declare it first."""
        reopen = self._redeclare_soon if missing else Subscription.open
        self.io.call_later(subscription.backoff.next_seconds(), lambda: reopen(subscription))

    def _redeclare_soon(self, subscription: Subscription) -> None:
        redeclare = self._members.get(subscription)
        if redeclare is None or subscription in self._redeclaring:
            return
        logger.warning("queue %s is missing; declaring it again", subscription.queue)
        task = self.io.loop.create_task(self._redeclare(subscription, redeclare), name=f"declare {subscription.queue}")
        self._redeclaring[subscription] = task
        task.add_done_callback(lambda _: self._redeclaring.pop(subscription, None))

    async def _redeclare(self, subscription: Subscription, redeclare: Callable[[], Awaitable[None]]) -> None:
        try:
            await redeclare()
        except RabbitMQError as error:
            logger.warning("queue %s could not be declared: %s", subscription.queue, error)
            self.restore(subscription, missing=True)
        except Exception:
            logger.exception("queue %s could not be declared", subscription.queue)
            self.restore(subscription, missing=True)
        else:
            subscription.open()

    def _on_up(self) -> None:
        for subscription in list(self._members):
            subscription.open()

    def _on_down(self, _error: RabbitMQError) -> None:
        for subscription in self._members:
            subscription.lose()
