"""Publishing: pipelined, confirmed, ordered, bounded.

Overview. Callers encode their publications, reserve space in the window (which provides back-pressure), and append them
to the outbox. The event loop writes the whole outbox as one batch, keeps each message under its delivery tag until
RabbitMQ confirms it, and settles the caller's receipt. A message is confirmed when every queue it was routed to has it
on disk on a majority of its nodes. Callers are coroutines of the loop (``apublish``), other threads (``publish``,
``submit_many``), or both at once: there is one window, one outbox and one order.

Possible outcomes of a message:

    ack                                  accepted
    return, then ack                     UnroutableError: the queue is missing
    nack                                 RejectedError
    channel closed, "no exchange x"      UnroutableError for messages to x; the others are published again
    no answer for a third of that        published again on the next node, if there are several
    no answer for confirm_timeout        ConfirmTimeoutError: it may or may not be queued
    alarm for blocked_timeout            BlockedError if it never left this process, else ConfirmTimeoutError
    connection lost                      published again, under the same message id, when the connection is back
    connection lost, never written       NotConnectedError after patience_seconds, if the publisher has that bound and
                                         every node has been tried
    never connected                      RabbitMQUnreachableError once every address has failed, or the refusal

Order. Messages leave in the order in which they were submitted. After a reconnect the unconfirmed ones are sent again
in that order, ahead of all newer ones, so messages with one routing key reach their queue in order, some perhaps twice.

State and who may touch it: the outbox, the unconfirmed messages with their tags, the channel, and the size of the
window's contents (``_held``, ``_held_bytes``) are guarded by ``_room``; everything else belongs to the loop. Receipts
are settled on the loop, without holding ``_room``, and a callback on their future must not block. A thread that
publishes while nothing else is waiting writes to the socket itself, which saves one iteration of the loop.

Time-outs are checked every :data:`SWEEP_SECONDS` instead of by a timer per message. During an alarm in RabbitMQ the
confirm time-out is suspended and the blocked time-out runs.

A node that answers and does not confirm is split from its peers, or very slow. Its messages are published again
elsewhere, so some are queued twice; admission recognises them by their ids. A third of the confirm time-out leaves a
message at least two more nodes.
"""

from __future__ import annotations

import asyncio
import logging
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Any, Final, Protocol

import pika.exceptions
from pika.spec import Basic

from floodgate.broker.amqp.connection import Connection, ConnectionState, closed_here
from floodgate.broker.amqp.frames import FrameOptions, encode
from floodgate.broker.errors import (
    BlockedError,
    ConfirmTimeoutError,
    NotConnectedError,
    PublishError,
    RabbitMQError,
    RejectedError,
    UnroutableError,
)
from floodgate.broker.messages.publication import Publication
from floodgate.broker.process.event_loop import BorrowedLoop
from floodgate.broker.process.metrics import CONFIRM, PUBLISHED, Metrics
from floodgate.broker.settings.model import Settings

__all__ = ["Publication", "Publisher"]

logger = logging.getLogger("floodgate.rabbitmq")

SWEEP_SECONDS: Final = 0.25
# A lost connection to a running server is back sooner than this, so a shorter loss is not reported.
AWAY_SECONDS: Final = 1.0
NODES_PER_CONFIRM: Final = 3  # how many nodes a message is published on, one after the other, before it fails
# The window counts messages; this bounds their bytes, for the rare program that sends 1000 messages of half a megabyte.
WINDOW_BYTES: Final = 32 * 1024 * 1024
# pika's offer, which RabbitMQ accepts unless configured otherwise; in that rare case messages are encoded again.
USUAL_FRAME_OPTIONS: Final = FrameOptions(channel=1, frame_max=131_072)

PublishOutcome = RabbitMQError | None
PublishOutcomes = tuple[PublishOutcome, ...]


class Receipt(Protocol):
    """Receives the outcomes of messages that were submitted together."""

    def settle(self, index: int, error: PublishOutcome) -> None:
        """Record the outcome of the message at ``index``."""
        ...


class AwaitedReceipt:
    """The receipt of one message that one thread waits for. A bare lock costs half as much as a future."""

    __slots__ = ("_error", "_settled")

    def __init__(self) -> None:
        self._error: PublishOutcome = None
        self._settled = threading.Lock()
        self._settled.acquire()

    def settle(self, _index: int, error: PublishOutcome) -> None:
        self._error = error
        self._settled.release()

    def wait(self) -> None:
        """Return once RabbitMQ has confirmed the message. Raise the error if it was not accepted."""
        self._settled.acquire()
        if self._error is not None:
            raise self._error


class BatchReceipt:
    """The receipt of several messages: one future, threaded or asyncio, with all their outcomes in order."""

    __slots__ = ("_left", "_outcomes", "future")

    def __init__(self, size: int, future: Future[PublishOutcomes] | asyncio.Future[PublishOutcomes]) -> None:
        self.future = future
        self._outcomes: list[PublishOutcome] = [None] * size
        self._left = size
        if not size:
            future.set_result(())

    def settle(self, index: int, error: PublishOutcome) -> None:
        if error is not None:
            self._outcomes[index] = error
        self._left -= 1
        if not self._left and not self.future.done():  # it is done if the waiting coroutine was cancelled
            self.future.set_result(tuple(self._outcomes))


class Entry:
    """A message in the window. Created by the caller; once in the outbox it belongs to the loop."""

    __slots__ = ("frames", "index", "publication", "receipt", "returned", "since", "size", "wire", "written")

    def __init__(
        self, publication: Publication, wire: FrameOptions, receipt: Receipt, index: int, since: float
    ) -> None:
        self.publication = publication
        self.wire = wire
        self.frames = encode(publication, wire)
        self.size = len(self.frames)  # as counted in the window, even if it is encoded again with another size
        self.receipt = receipt
        self.index = index
        self.since = since
        self.returned = False
        self.written = False  # on any connection so far: if so, RabbitMQ may have it

    def encoded(self, wire: FrameOptions) -> bytes:
        """Return the frames for these options, encoding the message again if they have changed."""
        if self.wire != wire:
            self.wire, self.frames = wire, encode(self.publication, wire)
        return self.frames


class Publisher:
    """Publishes on one connection. Any thread and any event loop may use it.

    Args:
        io: returns the running loop of the connections, which it starts at first use.
        metrics: where outcomes are counted.
        patience_seconds: how long a message waits for a lost connection; None waits for the confirm time-out.
    """

    def __init__(
        self,
        io: Callable[[], BorrowedLoop],
        settings: Settings,
        metrics: Metrics,
        patience_seconds: float | None = None,
    ) -> None:
        self._io_of = io
        self._metrics = metrics
        self._patience_when_away = patience_seconds
        self._window = settings.publish_window
        self._confirm_seconds = settings.confirm_timeout_seconds
        self._blocked_seconds = settings.blocked_timeout_seconds
        self.reset()

    def reset(self) -> None:
        """Initialise all state. Also called in a forked child, since messages in flight belong to the parent."""
        self._room = threading.Condition()
        self._held = 0
        self._held_bytes = 0
        self._stopped = False
        self._outbox: deque[Entry] = deque()
        self._wire = USUAL_FRAME_OPTIONS
        self._io: Any = None
        self._connection: Any = None
        self._channel: Any = None  # set while it takes publications
        self._opening: Any = None
        self._tag = 0
        self._oldest_tag = 1
        self._unconfirmed: dict[int, Entry] = {}  # by delivery tag, so in the order of publishing
        self._away_since: float | None = None  # when the connection was lost, until it is back
        self._ready_since = 0.0  # when the channel was opened
        self._blocked_since: float | None = None
        self._unblocked_at = 0.0
        self._sweeping = False
        self._line: asyncio.Lock | None = None  # coroutines that wait for room, first come, first served
        self._in_line = 0
        self._room_ahead: asyncio.Future[None] | None = None  # of the first of them
        self._emptied: asyncio.Future[None] | None = None  # of the caller that waits for the last confirm

    async def apublish(self, publication: Publication) -> None:
        """Publish and wait for the confirm, on an event loop.

        Raises:
            PublishError, RabbitMQUnreachableError, AccessRefusedError, UnsupportedServerError: as :meth:`publish`.
        """
        (outcome,) = await self.apublish_many((publication,))
        if outcome is not None:
            raise outcome

    async def apublish_many(self, publications: Sequence[Publication]) -> PublishOutcomes:
        """Publish several messages and wait for the confirms. Return an outcome for each, in order.

        Raises:
            ConfirmTimeoutError, BlockedError: the window stayed full; none of them was accepted.
        """
        return await (await self.asubmit_many(publications))

    async def asubmit_many(self, publications: Sequence[Publication]) -> asyncio.Future[PublishOutcomes]:
        """Submit several messages, waiting only while the window is full. Raises as :meth:`apublish_many` does.

        Called on a loop other than that of the connections, it does not wait for the window: the future does.
        """
        io = self._io_of()
        if not io.is_current:
            return asyncio.wrap_future(io.begin(self.apublish_many(publications)))
        future: asyncio.Future[PublishOutcomes] = io.loop.create_future()
        entries = self._entries(publications, BatchReceipt(len(publications), future))
        if self._in_line or not self._accept_now(entries):
            await self._accept_in_turn(entries)
        return future

    def publish(self, publication: Publication) -> None:
        """Publish and wait for the confirm.

        Raises:
            PublishError: the message is not known to be safe; the subclass says why.
            RabbitMQUnreachableError, AccessRefusedError, UnsupportedServerError: no connection was ever made.
        """
        receipt = AwaitedReceipt()
        self._accept([Entry(publication, self._wire, receipt, 0, time.monotonic())])
        receipt.wait()

    def submit_many(self, publications: Sequence[Publication]) -> Future[PublishOutcomes]:
        """Submit several messages. The future's result has an outcome for each, in order: None, or the error.

        Waits while the window is full.

        Raises:
            PublishError, RabbitMQUnreachableError: none of the messages was accepted.
        """
        future: Future[PublishOutcomes] = _running()
        self._accept(self._entries(publications, BatchReceipt(len(publications), future)))
        return future

    def submit_at_once(self, publications: Sequence[Publication]) -> Future[PublishOutcomes] | None:
        """Do the same as :meth:`submit_many`, on the loop of the connections. Return None if the window is full."""
        future: Future[PublishOutcomes] = _running()
        entries = self._entries(publications, BatchReceipt(len(publications), future))
        return future if not self._in_line and self._accept_now(entries) else None

    def refuse_when_away(self, since: float, message_ids: tuple[str, ...] = ()) -> None:
        """Check that a message submitted at ``since`` (monotonic seconds) need not wait too long for the connection.

        Raises:
            NotConnectedError: the connection is lost, and the message has waited for ``patience_seconds``.
        """
        if self._is_given_up(since):
            raise self._not_connected(message_ids)

    def _is_given_up(self, since: float) -> bool:
        away_since, patience = self._away_since, self._patience_when_away
        if away_since is None or patience is None or self._connection.tries_others:
            return False
        now = time.monotonic()
        return now - away_since >= AWAY_SECONDS and now - since >= patience

    def _not_connected(self, message_ids: tuple[str, ...]) -> NotConnectedError:
        fate = f"Job {message_ids[0]} was not accepted" if len(message_ids) == 1 else "Nothing was accepted"
        return NotConnectedError(
            f"{self._connection.last_error} {fate}: enqueue again when RabbitMQ is back, or set "
            "FLOODGATE_PUBLISH_PATIENCE_SECONDS to make callers wait for it.",
            job_ids=message_ids,
        )

    def stop(self) -> None:
        """Accept no more messages. Those already accepted are still published; see :meth:`flush`."""
        with self._room:
            self._stopped = True
            self._room.notify_all()

    def flush(self, timeout_seconds: float) -> int:
        """Wait until every accepted message is settled, for at most the time-out. Return how many are not."""
        with self._room:
            self._room.wait_for(lambda: not self._held, timeout_seconds)
            return self._held

    async def aflush(self, timeout_seconds: float) -> int:
        """Do the same as :meth:`flush` on the loop of the connections."""
        if self._held:
            self._emptied = self._io.loop.create_future()
            await asyncio.wait({self._emptied}, timeout=timeout_seconds)
        return self._held

    # Callers' threads.

    def _entries(self, publications: Sequence[Publication], receipt: Receipt) -> list[Entry]:
        wire, now = self._wire, time.monotonic()
        return [Entry(each, wire, receipt, index, now) for index, each in enumerate(publications)]

    def _accept(self, entries: list[Entry]) -> None:
        """Append entries to the outbox, from another thread, once the window has room."""
        count, size = len(entries), _size(entries)
        io = self._io_of()
        if io.is_current:
            raise RuntimeError("A blocking publish on the event loop would wait for itself: await apublish.")
        with self._room:
            self._wait_for_room(count, size, entries)
            self._hold(entries, count, size)
            if self._write_at_once(count):
                return
        io.call_soon(self._flush_outbox)

    def _write_at_once(self, count: int) -> bool:
        """Send the entries just added, if the loop has nothing else to send. Return whether they were sent."""
        idle = self._sweeping and self._channel is not None and self._blocked_since is None
        return idle and len(self._outbox) == count and self._connection.write_at_once(self._take_all)

    def _take_all(self) -> bytes:
        return b"".join(self._take(self._outbox.popleft()) for _ in range(len(self._outbox)))

    def _accept_now(self, entries: list[Entry]) -> bool:
        """Append entries to the outbox, on the loop. Return False if the window has no room for them."""
        count, size = len(entries), _size(entries)
        with self._room:
            if self._stopped:
                raise closed_here()
            self._refuse(entries)
            if self._held and not self._fits(count, size):
                return False
            self._hold(entries, count, size)
        self._io.call_soon(self._flush_outbox)
        return True

    async def _accept_in_turn(self, entries: list[Entry]) -> None:
        """Wait for room in the window, on the loop, first come, first served."""
        self._line = self._line or asyncio.Lock()
        started = time.monotonic()
        self._in_line += 1
        try:
            async with self._line:
                while not self._accept_now(entries):
                    left = started + self._patience_seconds() - time.monotonic()
                    if left <= 0:
                        raise self._window_full(self._blocked_since is not None, entries)
                    self._room_ahead = self._io.loop.create_future()
                    # Wakes every second, since an alarm changes how long to wait.
                    await asyncio.wait({self._room_ahead}, timeout=min(left, 1.0))
        finally:
            self._in_line -= 1

    def _hold(self, entries: list[Entry], count: int, size: int) -> None:
        self._held += count
        self._held_bytes += size
        self._outbox.extend(entries)

    def _patience_seconds(self) -> float:
        return self._blocked_seconds if self._blocked_since is not None else self._confirm_seconds

    def _wait_for_room(self, count: int, size: int, entries: list[Entry]) -> None:
        started = time.monotonic()
        self._refuse(entries)
        while self._held and not self._fits(count, size) and not self._stopped:
            self._refuse(entries)
            left = started + self._patience_seconds() - time.monotonic()
            if left <= 0:
                raise self._window_full(self._blocked_since is not None, entries)
            self._room.wait(min(left, 1.0))  # wakes every second, since an alarm changes how long to wait
        if self._stopped:
            raise closed_here()

    def _refuse(self, entries: list[Entry]) -> None:
        if self._away_since is not None and entries:
            self.refuse_when_away(entries[0].since, tuple(entry.publication.message_id for entry in entries))

    def _fits(self, count: int, size: int) -> bool:
        return self._held + count <= self._window and self._held_bytes + size <= WINDOW_BYTES

    def _window_full(self, blocked: bool, entries: list[Entry]) -> PublishError:
        ids = tuple(entry.publication.message_id for entry in entries)
        if blocked:
            return BlockedError(
                f"RabbitMQ has blocked publishers for {self._blocked_seconds:g} s (memory or disk alarm). "
                "Nothing was accepted: free memory or disk space on the server, then enqueue again.",
                job_ids=ids,
            )
        return ConfirmTimeoutError(
            f"The publish window was full for {self._confirm_seconds:g} s: RabbitMQ does not confirm. Nothing was "
            "accepted: see RabbitMQ's log, then enqueue again.",
            job_ids=ids,
        )

    # On the event loop, from here to the end.

    def attach(self, io: BorrowedLoop, connection: Connection) -> None:
        """Publish on this connection, which is opened for the first message."""
        self._io, self._connection = io, connection
        connection.follow(self._on_up, self._on_down)

    def fail_all(self, error: RabbitMQError) -> None:
        """Settle every message as failed."""
        for entry in self._withdraw(lambda _entry: True):
            self._settle(entry, error)

    def close_channel(self) -> None:
        """Close the channel. To be called before the connection closes."""
        if self._channel is not None and self._channel.is_open:
            self._connection.flush()
            self._channel.close()
        self._channel = None

    def _flush_outbox(self) -> None:
        if self._outbox:
            self._start_sweeping()
        if self._channel is None or self._blocked_since is not None:
            if self._connection.state is ConnectionState.IDLE:
                self._connection.open()
            return
        with self._room:
            while self._outbox:
                self._connection.write(self._take(self._outbox.popleft()))
        self._connection.flush()

    def _take(self, entry: Entry) -> bytes:
        self._tag += 1
        self._unconfirmed[self._tag] = entry
        entry.written = True
        return entry.frames if entry.wire is self._wire else entry.encoded(self._wire)

    def _on_up(self) -> None:
        pika_connection = self._connection.pika_connection
        pika_connection.add_on_connection_blocked_callback(self._on_blocked)
        pika_connection.add_on_connection_unblocked_callback(self._on_unblocked)
        self._open_channel()

    def _open_channel(self) -> None:
        if self._connection.state is ConnectionState.UP and self._channel is None and self._opening is None:
            self._opening = self._connection.pika_connection.channel(on_open_callback=self._on_channel_open)
            self._opening.add_on_close_callback(self._on_channel_closed)

    def _on_channel_open(self, channel: Any) -> None:
        channel.add_on_return_callback(self._on_return)
        channel.confirm_delivery(self._on_confirm, callback=lambda _ok: self._ready(channel))

    def _ready(self, channel: Any) -> None:
        wire = FrameOptions(channel.channel_number, channel.connection.params.frame_max)
        with self._room:
            self._channel, self._opening = channel, None
            self._away_since = None
            self._ready_since = time.monotonic()
            if wire != self._wire:
                self._wire = wire
            channel.connection.on_ack[channel.channel_number] = self._on_confirm
            self._tag, self._oldest_tag = 0, 1
            self._outbox.extendleft(reversed(self._unconfirmed.values()))
            self._unconfirmed.clear()
        self._flush_outbox()

    def _on_channel_closed(self, channel: Any, reason: Exception) -> None:
        channel.connection.on_ack.pop(channel.channel_number, None)
        if channel is not self._channel and channel is not self._opening:
            return
        with self._room:
            self._channel = self._opening = None
            for entry in self._unconfirmed.values():
                entry.returned = False
        if isinstance(reason, pika.exceptions.ChannelClosedByBroker):
            self._fail_refused(reason)
            self._io.call_later(SWEEP_SECONDS, self._open_channel)

    def _fail_refused(self, reason: Any) -> None:
        """Fail the messages to the exchange that the server names: missing, or not writable for this account."""
        match = re.search(r"exchange '([^']*)' in vhost", reason.reply_text)
        exchange = match.group(1) if match else None
        logger.warning("RabbitMQ closed the publishing channel: %s", reason.reply_text)
        leaf = UnroutableError if reason.reply_code == 404 else RejectedError
        for entry in self._withdraw(lambda entry: entry.written and entry.publication.exchange == exchange):
            message_id = entry.publication.message_id
            self._settle(entry, leaf(f"Job {message_id} was not accepted: {reason.reply_text}.", job_ids=(message_id,)))

    def _on_down(self, error: RabbitMQError) -> None:
        with self._room:
            self._channel = self._opening = None
        self._end_alarm()
        if not self._connection.ever_up:
            self.fail_all(error)
        elif self._away_since is None:
            self._away_since = time.monotonic()

    def _on_blocked(self, _connection: Any, frame: Any) -> None:
        logger.warning("RabbitMQ blocks publishers (%s)", frame.method.reason)
        self._blocked_since = time.monotonic()

    def _on_unblocked(self, _connection: Any, _frame: Any) -> None:
        logger.info("RabbitMQ accepts publications again")
        self._end_alarm()
        self._flush_outbox()

    def _end_alarm(self) -> None:
        if self._blocked_since is not None:
            self._blocked_since, self._unblocked_at = None, time.monotonic()

    def _on_return(self, _channel: Any, method: Any, properties: Any, _body: bytes) -> None:
        """Mark a message as returned; its ack follows. If an id is in flight twice, the first is returned first."""
        with self._room:
            unconfirmed = list(self._unconfirmed.values())
        for entry in unconfirmed:
            publication = entry.publication
            if (
                publication.message_id == properties.message_id
                and publication.routing_key == method.routing_key
                and publication.exchange == method.exchange
                and not entry.returned
            ):
                entry.returned = True
                return

    def _on_confirm(self, frame: Any) -> None:
        method = frame.method
        rejected = isinstance(method, Basic.Nack)
        with self._room:
            found = [self._unconfirmed.pop(tag, None) for tag in self._tags(method.delivery_tag, method.multiple)]
        entries = [entry for entry in found if entry is not None]  # the others were confirmed before, or timed out
        self._give_room(len(entries), _size(entries))
        for entry in entries:
            entry.receipt.settle(entry.index, _verdict(entry, rejected) if rejected or entry.returned else None)
        self._measure(entries, rejected)

    def _measure(self, entries: list[Entry], rejected: bool) -> None:
        """Count what RabbitMQ has answered together, and time the oldest: each by itself would cost more."""
        if not entries:
            return
        failed = len(entries) if rejected else sum(entry.returned for entry in entries)
        self._metrics.count(PUBLISHED, "confirmed", by=len(entries) - failed)
        self._metrics.count(PUBLISHED, "failed", by=failed)
        self._metrics.observe(CONFIRM, time.monotonic() - entries[0].since)

    def _tags(self, tag: int, multiple: bool) -> Iterable[int]:
        """Return the delivery tags that a confirm covers; some may be settled already."""
        oldest = self._oldest_tag
        if multiple or tag == oldest:
            self._oldest_tag = tag + 1
        if not multiple:
            return (tag,)
        if tag - oldest < 2 * self._window:
            return range(oldest, tag + 1)
        return [each for each in self._unconfirmed if each <= tag]  # a gap of many tags confirmed one by one

    def _give_room(self, count: int, size: int) -> None:
        with self._room:
            self._held -= count
            self._held_bytes -= size
            # If each confirm woke a caller, callers would send one message at a time.
            roomy = self._held * 2 <= self._window
            if roomy:
                self._room.notify_all()
        if roomy and self._room_ahead is not None and not self._room_ahead.done():
            self._room_ahead.set_result(None)
        if not self._held and self._emptied is not None and not self._emptied.done():
            self._emptied.set_result(None)

    def _settle(self, entry: Entry, error: PublishOutcome) -> None:
        entry.receipt.settle(entry.index, error)
        self._metrics.count(PUBLISHED, "failed")
        self._give_room(1, entry.size)

    def _withdraw(self, which: Callable[[Entry], bool]) -> list[Entry]:
        """Remove the entries that are to fail."""
        with self._room:
            written = {tag: entry for tag, entry in self._unconfirmed.items() if which(entry)}
            for tag in written:
                del self._unconfirmed[tag]
            waiting = [entry for entry in self._outbox if which(entry)]
            if waiting:
                kept = [entry for entry in self._outbox if not which(entry)]
                self._outbox.clear()
                self._outbox.extend(kept)
        return [*written.values(), *waiting]

    def _start_sweeping(self) -> None:
        if not self._sweeping:
            self._sweeping = True
            self._io.call_later(SWEEP_SECONDS, self._sweep)

    def _sweep(self) -> None:
        self._sweeping = False
        now = time.monotonic()
        for entry in self._withdraw(lambda entry: not entry.written and self._is_given_up(entry.since)):
            self._settle(entry, self._not_connected((entry.publication.message_id,)))
        if (blocked_since := self._blocked_since) is not None:
            self._fail_late(lambda entry: now - max(entry.since, blocked_since) >= self._blocked_seconds, blocked=True)
        else:
            self._fail_late(lambda entry: now - max(entry.since, self._unblocked_at) >= self._confirm_seconds)
            self._leave_if_unconfirmed(now)
        if self._unconfirmed or self._outbox:
            self._start_sweeping()

    def _leave_if_unconfirmed(self, now: float) -> None:
        """Go to another node if this one has not confirmed the oldest message for too long."""
        oldest = next(iter(self._unconfirmed.values()), None)
        if oldest is None or self._channel is None or not self._connection.has_others:
            return
        seconds = self._confirm_seconds / NODES_PER_CONFIRM
        if now - max(oldest.since, self._ready_since, self._unblocked_at) >= seconds:
            self._connection.leave(f"it has not confirmed a message for {seconds:g} s")

    def _fail_late(self, late: Callable[[Entry], bool], *, blocked: bool = False) -> None:
        for entry in self._withdraw(late):
            self._settle(entry, self._lateness(entry, blocked))

    def _lateness(self, entry: Entry, blocked: bool) -> PublishError:
        ids = (entry.publication.message_id,)
        if blocked and not entry.written:
            return BlockedError(
                f"RabbitMQ has blocked publishers for {self._blocked_seconds:g} s (memory or disk alarm). "
                f"Job {ids[0]} was not accepted: free memory or disk space on the server, then enqueue it again.",
                job_ids=ids,
            )
        why = (
            f" ({self._connection.last_error})"
            if self._connection.state is not ConnectionState.UP and self._connection.last_error
            else ""
        )
        seconds = self._blocked_seconds if blocked else self._confirm_seconds
        fate = "may or may not be queued" if entry.written else "was not accepted"
        return ConfirmTimeoutError(
            f"RabbitMQ did not confirm job {ids[0]} within {seconds:g} s{why}. "
            f"It {fate}: enqueue it again under the same id.",
            job_ids=ids,
        )


def _size(entries: list[Entry]) -> int:
    return sum(entry.size for entry in entries)


def _verdict(entry: Entry, rejected: bool) -> PublishError:
    publication = entry.publication
    ids = (publication.message_id,)
    if rejected:
        return RejectedError(
            f"RabbitMQ rejected job {ids[0]} for {publication.routing_key!r}: the queue is full, has lost its quorum "
            "or has just been deleted. It was not accepted: see the server's log, then enqueue it again.",
            job_ids=ids,
        )
    return UnroutableError(
        f"The server has no queue {publication.routing_key!r} for job {ids[0]}; it was not accepted. "
        "`floodgate topology apply` creates missing queues; FLOODGATE_PARTITIONS must be the same everywhere.",
        job_ids=ids,
    )


def _running() -> Future[Any]:
    future: Future[Any] = Future()
    future.set_running_or_notify_cancel()  # a submitted message cannot be cancelled
    return future
