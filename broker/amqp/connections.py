"""A process's connections to RabbitMQ: one for publishing, and as many for consuming as its queues need.

They are separate because during a memory or disk alarm RabbitMQ stops reading from connections that publish, and acks
must still get through. Each is opened when first needed, so a producer has only one. RabbitMQ allows 2,047 channels per
connection, and a consumed queue takes one: the 2,001st queue opens another connection. They go to the configured
addresses in one order, which each process draws, so that many processes spread over the nodes.

The loop. All connections live on one event loop: the caller's own, as a :class:`BorrowedLoop`, or one on a background
thread. When the owner closes a borrowed loop (``asyncio.run`` has ended), its connections are lost; the next use, on
another loop, opens new ones.

Lifecycle: the constructor opens and starts nothing. The first use starts the loop; ``stop`` (from a thread) or
``aclose`` (on the loop) ends it for good, in this order: accept nothing new, wait for outstanding confirms, hand the
queues back, close channels and connections, stop the background loop. At exit, the same is done for a program that did
not call them, within :data:`EXIT_SECONDS`.

Fork: threads do not survive a fork, and sockets must not be shared. A child gets new locks, a new loop and new
connections at its first use; it closes its copies of the parent's sockets without sending anything to RabbitMQ.
Messages in flight stay with the parent.

State: ``_live`` (the loop and everything on it) is created once, under ``_lock``. Its contents belong to its loop.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import random
import threading
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Final, Self, TypeVar

from floodgate.broker.amqp.addresses import Address, parse_address
from floodgate.broker.amqp.connection import Connection, ConnectionOptions, ConnectionState, quiet_pika
from floodgate.broker.amqp.consumer import MOST_SUBSCRIPTIONS, PREFETCH, Delivery, Subscription, Subscriptions
from floodgate.broker.amqp.declaration import bound_seconds, declare_if_allowed
from floodgate.broker.amqp.liveness import LivenessCheck
from floodgate.broker.amqp.publisher import Publisher
from floodgate.broker.amqp.session import ConnectionLostError, Session
from floodgate.broker.amqp.topology import Topology
from floodgate.broker.errors import RabbitMQError, RabbitMQUnreachableError, SettingsError
from floodgate.broker.process.event_loop import BackgroundLoop, BorrowedLoop
from floodgate.broker.process.metrics import RECONNECTS, Metrics
from floodgate.broker.process.outages import OutageLog
from floodgate.broker.settings.model import Settings

logger = logging.getLogger("floodgate.rabbitmq")

T = TypeVar("T")

EXIT_SECONDS: Final = 2.0
STOP_SECONDS: Final = 10.0
# Ten connections' worth. A partition costs RabbitMQ about 0.1 MB and a worker 20 kB: beyond this, split the bots.
MOST_QUEUES: Final = 10 * MOST_SUBSCRIPTIONS

SessionWork = Callable[[Session], Awaitable[T]]


@dataclass(slots=True)
class OpenConnections:
    """The running loop, the publishing connection, and the groups of subscriptions, each on its own connection."""

    io: BorrowedLoop
    addresses: tuple[Address, ...]
    publishing: Connection
    consuming: list[Subscriptions]

    @property
    def all(self) -> list[Connection]:
        """Every connection, the publishing one first."""
        return [self.publishing, *(group.connection for group in self.consuming)]


class Connections:
    """A process's connections to RabbitMQ: see the module. Any thread may use them.

    Args:
        role_name: part of the connections' name in RabbitMQ, as in ``floodgate publish worker 4711``.
        on_callers_loop: run on the event loop that is running at the first use, instead of a background thread.
        patience_seconds: how long a message waits for a lost connection; None waits for the confirm time-out.
        metrics: where confirms and reconnections are counted; None counts them for nobody.
        chance: draws the order of the addresses.
    """

    def __init__(
        self,
        settings: Settings,
        role_name: str,
        *,
        on_callers_loop: bool = False,
        patience_seconds: float | None = None,
        metrics: Metrics | None = None,
        chance: random.Random | None = None,
    ) -> None:
        self._settings = settings
        self._role_name = role_name
        self._chance = chance or random.Random()
        self._on_callers_loop = on_callers_loop
        self._lock = threading.Lock()
        self._live: OpenConnections | None = None
        self._stopped = False
        self._crashed: BaseException | None = None
        self._subscribed = 0  # under _lock
        metrics = metrics or Metrics()
        metrics.follow(RECONNECTS, self._reconnections)
        self.publisher = Publisher(lambda: self._running().io, settings, metrics, patience_seconds)
        _remember(self)  # before first use, since a fork may happen during it

    @property
    def io(self) -> BorrowedLoop:
        """The event loop, started."""
        return self._running().io

    def connect(self, *, keep_trying: bool = False) -> None:
        """Do the same as :meth:`aconnect` from a thread."""
        self.io.run(self.aconnect(keep_trying=keep_trying), None if keep_trying else self._connect_seconds())

    async def aconnect(self, *, keep_trying: bool = False) -> None:
        """Wait for the publishing connection.

        Makes at most one round over the addresses, each bounded by ``connect_timeout_seconds``; with
        ``keep_trying`` any number of rounds, for as long as RabbitMQ is merely unreachable.

        Raises:
            RabbitMQUnreachableError, AccessRefusedError, UnsupportedServerError: there is no usable server.
        """
        outage = OutageLog()
        while True:
            try:
                return await self.io.join(self._running().publishing.opened())
            except RabbitMQUnreachableError as error:
                if not keep_trying or self._stopped:
                    raise
                if outage.is_due():
                    logger.warning("%s Trying again.", error)

    @property
    def server_version(self) -> tuple[int, ...]:
        """The server's version, as in ``(4, 0, 5)``; empty before the first connection."""
        live = self._live
        return (
            next((connection.server_version for connection in live.all if connection.server_version), ())
            if live
            else ()
        )

    def subscribe(
        self,
        queue: str,
        worker_id: str,
        on_delivery: Callable[[Delivery], None],
        topology: Callable[[], Topology],
        on_lost: Callable[[], None] | None = None,
        prefetch: int = PREFETCH,
    ) -> Subscription:
        """Consume a queue until the subscription is closed, across any loss of connection.

        Both callbacks run on the event loop and must not block.

        Args:
            on_delivery: called for each message.
            on_lost: called when unsettled messages have returned to the queue without being handed back by this
                process: RabbitMQ may already be delivering them to another consumer.
            topology: returns the topology to declare when the queue is missing.
            prefetch: maximum number of unsettled messages.

        Raises:
            SettingsError: a process cannot consume that many queues.
        """
        live = self._running()
        group = self._group_with_room(live)
        subscription = Subscription(group, queue, worker_id, on_delivery, on_lost, prefetch)
        live.io.call_soon(lambda: group.add(subscription, lambda: self._declare(topology())))
        return subscription

    def _reconnections(self) -> float:
        live = self._live
        return sum(connection.reconnections for connection in live.all) if live else 0.0

    def _group_with_room(self, live: OpenConnections) -> Subscriptions:
        with self._lock:
            check_queue_count(self._subscribed + 1)
            number, place = divmod(self._subscribed, MOST_SUBSCRIPTIONS)
            self._subscribed += 1
            if number and not place:
                live.consuming.append(self._subscriptions(live.io, f"consume-{number + 1}", live.addresses))
            return live.consuming[number]

    def _subscriptions(self, io: BorrowedLoop, purpose: str, addresses: tuple[Address, ...]) -> Subscriptions:
        group = Subscriptions(io, Connection(io, self._options(purpose, addresses)))
        silence_seconds = self._settings.silence_timeout_seconds
        LivenessCheck(io, group.connection, silence_seconds, lambda: group.consumed, group.note_waiting)
        return group

    def run(self, work: SessionWork[T], timeout_seconds: float) -> T:
        """Do the same as :meth:`arun` from a thread."""
        bound = 2 * (timeout_seconds + self._connect_seconds())
        try:
            return self.io.run(self.arun(work, timeout_seconds), bound)
        except TimeoutError:
            raise _no_answer() from None

    async def arun(self, work: SessionWork[T], timeout_seconds: float, *, repeatable: bool = True) -> T:
        """Run a short task over AMQP, and return its result once its channels are closed.

        If the connection is lost, the task is begun again on another, once; not if it is not ``repeatable``.

        Raises:
            RabbitMQUnreachableError: no server can be reached, or it did not answer in time.
            RabbitMQError: raised by the task itself.
        """
        return await self.io.join(self._run(work, timeout_seconds, repeatable))

    async def _declare(self, topology: Topology) -> None:
        await self.arun(partial(declare_if_allowed, topology), bound_seconds(topology))

    async def _run(self, work: SessionWork[T], timeout_seconds: float, repeatable: bool) -> T:
        try:
            return await self._run_once(work, timeout_seconds)
        except ConnectionLostError:
            if not repeatable:
                raise
            return await self._run_once(work, timeout_seconds)

    async def _run_once(self, work: SessionWork[T], timeout_seconds: float) -> T:
        async with self.session() as session:
            try:
                async with asyncio.timeout(timeout_seconds):
                    return await work(session)
            except TimeoutError:
                raise _no_answer() from None

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """Open a session, which is closed at the end. On the event loop only.

        Raises:
            RabbitMQUnreachableError, AccessRefusedError, UnsupportedServerError: there is no usable server.
        """
        connection = await self._open_connection()
        session = Session(connection.pika_connection, connection.server_version)
        try:
            yield session
        finally:
            await session.close()

    async def _open_connection(self) -> Connection:
        """Return an open connection for a short task: preferably a consuming one, since an alarm cannot block it."""
        live = self._running()
        up = next(
            (connection for connection in reversed(live.all) if connection.state is ConnectionState.UP), live.publishing
        )
        await up.opened()
        return up

    def stop(self, timeout_seconds: float = STOP_SECONDS) -> None:
        """Stop, from a thread, in the order given for the module. Takes at most one second more than the time-out;
        safe to call twice, and before any use."""
        if (live := self._begin_stop()) is not None:
            self._stop(live, timeout_seconds)

    async def aclose(self, timeout_seconds: float = STOP_SECONDS) -> None:
        """Do the same as :meth:`stop` on an event loop."""
        if (live := self._begin_stop()) is None:
            return
        if not live.io.is_current:
            await asyncio.to_thread(self._stop, live, timeout_seconds)
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                await self._close(live, await self.publisher.aflush(timeout_seconds / 2))

    def _begin_stop(self) -> OpenConnections | None:
        """Accept nothing new. Return what must be stopped, or None."""
        with self._lock:
            already, self._stopped = self._stopped, True
            live = self._live
        self.publisher.stop()
        if already or live is None:
            return None
        if live.io.is_over:
            self._forget()
            return None
        return live

    def _stop(self, live: OpenConnections, timeout_seconds: float) -> None:
        deadline = time.monotonic() + timeout_seconds
        unconfirmed = self.publisher.flush(timeout_seconds)
        with suppress(
            TimeoutError, RuntimeError
        ):  # RuntimeError: called on the very loop, which cannot wait for itself
            live.io.run(self._close(live, unconfirmed), max(0.2, deadline - time.monotonic()))
        live.io.stop(1.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_raised: object) -> None:
        self.stop()

    async def _close(self, live: OpenConnections, unconfirmed: int) -> None:
        if unconfirmed:
            logger.error("%d messages were not confirmed when the program ended; they may be lost", unconfirmed)
        for group in live.consuming:
            group.close()
        self.publisher.fail_all(RabbitMQUnreachableError("The program ended before RabbitMQ confirmed."))
        self.publisher.close_channel()
        await asyncio.gather(*(connection.close() for connection in live.all))

    def _running(self) -> OpenConnections:
        live = self._live
        if live is not None and self._crashed is None and not live.io.is_over:
            return live
        with self._lock:
            if self._crashed is not None:
                raise RabbitMQError("The RabbitMQ event loop crashed (a bug in Floodgate); see the log. Restart.")
            if self._stopped:
                raise RabbitMQUnreachableError("The connection to RabbitMQ was closed by this program.")
            if self._live is not None and self._live.io.is_over:
                self._forget()
            if self._live is None:
                self._live = self._begin()
            return self._live

    def _begin(self) -> OpenConnections:
        quiet_pika()
        io = BorrowedLoop() if self._on_callers_loop else BackgroundLoop(self._on_crash)
        io.start()
        addresses = [parse_address(url) for url in self._settings.rabbitmq_urls]
        self._chance.shuffle(addresses)
        order = tuple(addresses)
        publishing = Connection(io, self._options("publish", order))
        LivenessCheck(io, publishing, self._settings.silence_timeout_seconds)
        live = OpenConnections(io, order, publishing, [self._subscriptions(io, "consume", order)])
        self.publisher.attach(io, publishing)
        return live

    def _options(self, purpose: str, addresses: tuple[Address, ...]) -> ConnectionOptions:
        return ConnectionOptions(
            addresses,
            f"floodgate {purpose} {self._role_name} {os.getpid()}",
            self._settings.heartbeat_seconds,
            self._settings.connect_timeout_seconds,
            waited_for=purpose == "publish",
            unacknowledged_seconds=2 * self._settings.silence_timeout_seconds,
        )

    def _connect_seconds(self) -> float:
        """Return the bound on one round over the addresses."""
        return self._settings.connect_timeout_seconds * len(self._settings.rabbitmq_urls) + 1

    def _on_crash(self, error: BaseException) -> None:
        self._crashed = error
        self.publisher.fail_all(RabbitMQError("The RabbitMQ event loop crashed (a bug in Floodgate); see the log."))

    def _forget(self) -> None:
        """Abandon the connections of a closed loop, or of a forked child's parent, without telling RabbitMQ."""
        live, self._live = self._live, None
        self._crashed, self._subscribed = None, 0
        self.publisher.reset()
        if live is not None:
            for connection in live.all:
                connection.abandon()
            live.io.abandon()
            _abandoned.append(live)

    def _start_over(self) -> None:
        """Start with new locks and no connections, in a forked child."""
        self._lock = threading.Lock()
        self._chance.seed()  # or all children would draw the same order
        self._forget()


def check_queue_count(count: int) -> None:
    """Check that one process may consume this many queues.

    Raises:
        SettingsError: there are more than :data:`MOST_QUEUES`.
    """
    if count > MOST_QUEUES:
        raise SettingsError(
            f"This worker would consume {count} queues, and a process can consume at most {MOST_QUEUES}. Lower "
            "FLOODGATE_PARTITIONS and FLOODGATE_UPDATE_PARTITIONS, or split the bots over several workers."
        )


def _no_answer() -> RabbitMQUnreachableError:
    return RabbitMQUnreachableError("RabbitMQ did not answer in time. Check its log and whether it has an alarm.")


# Every instance, to be stopped at exit and reset in a forked child.
_known: weakref.WeakSet[Connections] = weakref.WeakSet()
_hooks = threading.Lock()
_hooked = False
# Kept so that they are never finalized, which could act on sockets shared with a fork's parent.
_abandoned: list[OpenConnections] = []


def _remember(connections: Connections) -> None:
    global _hooked
    with _hooks:
        _known.add(connections)
        if not _hooked:
            _hooked = True
            atexit.register(_stop_all)
            os.register_at_fork(after_in_child=_start_all_over)


def _stop_all() -> None:
    for connections in list(_known):
        connections.stop(EXIT_SECONDS)


def _start_all_over() -> None:
    global _hooks
    _hooks = threading.Lock()
    for connections in list(_known):
        connections._start_over()
