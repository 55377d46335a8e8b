"""A process's connections to RabbitMQ: one I/O thread, one connection for publishing, one for consuming.

Two, because RabbitMQ stops reading from a connection that publishes while it has a memory or disk alarm, and
acks must get through then. Each is opened by what first needs it: a producer has just the one. Whatever the
number of queues, a process has no more.

Life: constructing opens nothing and starts nothing. The first use starts the thread; ``stop`` ends it for
good, in this order: take nothing new, wait for the confirms still out, hand the queues back, close channels
and connections, end the loop and its thread. A program that just ends has the same done for it, within
:data:`EXIT_SECONDS`.

Fork: threads do not survive a fork and sockets must not be shared. A child starts with new locks, a new
thread and new connections at its first use; it closes its copies of the parent's sockets without a word to
RabbitMQ. What was under way stays the parent's.

State: ``_live`` (thread and what runs on it) is made once, under ``_lock``. What is in it belongs to its
thread.
"""

from __future__ import annotations

import atexit
import logging
import math
import os
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from typing import Final, Self, TypeVar

from broker.addresses import parse_address
from broker.channel_script import Run, Script, Session
from broker.consumer import MOST_SUBSCRIPTIONS, Delivery, Subscription, Subscriptions
from broker.errors import RabbitMQError, RabbitMQUnreachableError
from broker.io_thread import IoThread
from broker.link import COMPLAIN_SECONDS, Link, LinkOptions, LinkState, Waiter
from broker.publisher import Publisher
from broker.settings import Settings
from broker.topology import Topology, declare_soon

logger = logging.getLogger("floodgate.rabbitmq")

T = TypeVar("T")

EXIT_SECONDS: Final = 2.0
STOP_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Live:
    """What runs: the thread, the two links, and the subscriptions on the second."""

    io: IoThread
    publishing: Link
    consuming: Link
    subscriptions: Subscriptions


class Connections:
    """See the module. Any thread may use it.

    Parameters:
        role_name: what RabbitMQ shows for the connections, as in ``floodgate publish worker 4711``.
    """

    def __init__(self, settings: Settings, role_name: str) -> None:
        self._settings = settings
        self._role_name = role_name
        self._lock = threading.Lock()
        self._live: Live | None = None
        self._stopped = False
        self._crashed: BaseException | None = None
        self._subscribed = 0  # under _lock
        self.publisher = Publisher(lambda: self._running().io, settings)
        _remember(self)  # before first use: a fork may fall into that, too

    def connect(self, *, keep_trying: bool = False) -> None:
        """Wait for the publishing connection.

        One round over the addresses at most, each bounded by ``connect_timeout_seconds``; with
        ``keep_trying`` any number of rounds, as long as RabbitMQ is merely unreachable.

        Raises:
            RabbitMQUnreachableError, AccessRefusedError, UnsupportedServerError: there is no usable server.
        """
        complained_at = -math.inf
        while True:
            try:
                return self._wait_open()
            except RabbitMQUnreachableError as error:
                if not keep_trying or self._stopped:
                    raise
                if time.monotonic() - complained_at >= COMPLAIN_SECONDS:
                    complained_at = time.monotonic()
                    logger.warning("%s Trying again.", error)

    def _wait_open(self) -> None:
        opened: Future[None] = Future()
        self._when_open(
            lambda live: live.publishing, lambda _live, _link: opened.set_result(None), opened.set_exception
        )
        opened.result()

    @property
    def server_version(self) -> tuple[int, ...]:
        """The server's version, as in ``(4, 0, 5)``; empty before the first connection."""
        live = self._live
        return (live.publishing.server_version or live.consuming.server_version) if live else ()

    def subscribe(
        self,
        queue: str,
        worker_id: str,
        on_delivery: Callable[[Delivery], None],
        topology: Topology,
        on_lost: Callable[[], None] | None = None,
        *,
        prefetch: int = 1,
    ) -> Subscription:
        """Consume a queue, from now until it is closed, through any loss of connection; at most ``prefetch`` messages
        are in hand at a time.

        ``on_delivery`` is called on the I/O thread and must not wait, and so is ``on_lost``, when what was in hand
        has gone back without having been settled or handed over here: RabbitMQ may be giving it to another by now.
        ``topology`` is declared when the queue turns out to be missing.
        """
        live = self._running()
        with self._lock:
            self._subscribed += 1
            if self._subscribed > MOST_SUBSCRIPTIONS:
                raise RabbitMQError(
                    f"A process can consume {MOST_SUBSCRIPTIONS} queues. Lower FLOODGATE_PARTITIONS, or split the bots."
                )
        subscription = Subscription(live.subscriptions, queue, worker_id, on_delivery, on_lost, prefetch)
        live.io.call_soon(lambda: live.subscriptions.add(subscription, lambda: declare_soon(self, topology)))
        return subscription

    def run(self, script: Callable[[Session], Script[T]], timeout_seconds: float) -> T:
        """Run a script of AMQP calls and wait for its result.

        Raises:
            RabbitMQUnreachableError: there is no server, or it did not answer in time.
        """
        bound = timeout_seconds + self._settings.connect_timeout_seconds * len(self._settings.rabbitmq_urls) + 1
        if self._running().io.is_current:
            raise RuntimeError("The I/O thread must not wait for itself.")
        try:
            return self.start(script, timeout_seconds).result(bound)
        except FutureTimeoutError:
            raise RabbitMQUnreachableError("RabbitMQ did not answer in time. See its log.") from None

    def start(self, script: Callable[[Session], Script[T]], timeout_seconds: float) -> Future[T]:
        """:meth:`run` without waiting. The future cannot be cancelled: a script runs to its end."""
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()

        def begin(live: Live, link: Link) -> None:
            run = Run(script, link.connection, link.server_version, future)
            timer = live.io.call_later(timeout_seconds, run.expire)
            future.add_done_callback(lambda _: live.io.forget(timer))
            run.begin()

        self._when_open(_open_link, begin, future.set_exception)
        return future

    def call_soon(self, call: Callable[[], None]) -> None:
        """Run a call on the I/O thread. It must neither wait nor raise."""
        self._running().io.call_soon(call)

    def stop(self, timeout_seconds: float = STOP_SECONDS) -> None:
        """Stop, in the order of the module's text. Safe to call twice, and unstarted; bounded by the time-out
        and a second."""
        with self._lock:
            already, self._stopped = self._stopped, True
            live = self._live
        self.publisher.stop()
        if live is None or already:
            return
        deadline = time.monotonic() + timeout_seconds
        if lost := self.publisher.flush(timeout_seconds):
            logger.error("%d messages were not confirmed when the program ended; they may be lost", lost)
        closed = threading.Event()
        live.io.call_soon(lambda: self._close(live, closed.set))
        closed.wait(max(0.2, deadline - time.monotonic()))
        live.io.stop(1.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_raised: object) -> None:
        self.stop()

    def _close(self, live: Live, done: Callable[[], None]) -> None:
        live.subscriptions.close()
        self.publisher.fail_all(RabbitMQUnreachableError("The program ended before RabbitMQ confirmed."))
        self.publisher.close_channel()
        live.publishing.close(lambda: live.consuming.close(done))

    def _when_open(
        self,
        choose: Callable[[Live], Link],
        then: Callable[[Live, Link], None],
        failed: Callable[[RabbitMQError], None],
    ) -> None:
        """Have ``then`` called on the I/O thread once the chosen link is open, or ``failed`` when it cannot
        be opened."""
        live = self._running()

        def wait() -> None:
            link = choose(live)
            link.when_open(Waiter(lambda: then(live, link), failed))

        live.io.call_soon(wait)

    def _running(self) -> Live:
        live = self._live
        if live is not None and self._crashed is None:
            return live
        with self._lock:
            if self._crashed is not None:
                raise RabbitMQError("The RabbitMQ I/O thread has ended by a fault in Floodgate; see the log. Restart.")
            if self._stopped:
                raise RabbitMQUnreachableError("The connection to RabbitMQ was closed by this program.")
            if self._live is None:
                self._live = self._begin()
            return self._live

    def _begin(self) -> Live:
        io = IoThread(self._on_crash)
        publishing, consuming = Link(io, self._options("publish")), Link(io, self._options("consume"))
        live = Live(io, publishing, consuming, Subscriptions(io, consuming))
        self.publisher.attach(io, publishing)
        io.start()
        return live

    def _options(self, purpose: str) -> LinkOptions:
        return LinkOptions(
            tuple(parse_address(url) for url in self._settings.rabbitmq_urls),
            f"floodgate {purpose} {self._role_name} {os.getpid()}",
            self._settings.heartbeat_seconds,
            self._settings.connect_timeout_seconds,
            waited_for=purpose == "publish",
        )

    def _on_crash(self, error: BaseException) -> None:
        self._crashed = error
        self.publisher.fail_all(
            RabbitMQError("The RabbitMQ I/O thread has ended by a fault in Floodgate; see the log.")
        )

    def _start_over(self) -> None:
        """In a forked child."""
        live, self._live = self._live, None
        self._lock = threading.Lock()
        self._crashed, self._subscribed = None, 0
        self.publisher.reset()
        if live is not None:
            live.publishing.abandon()
            live.consuming.abandon()
            live.io.abandon()
            _parents.append(live)


def _open_link(live: Live) -> Link:
    """For a short script: the consuming link if that is up, since an alarm cannot block it."""
    return live.consuming if live.consuming.state is LinkState.UP else live.publishing


# All there are: to be stopped when the program ends, and to start over in a forked child.
_known: weakref.WeakSet[Connections] = weakref.WeakSet()
_hooks = threading.Lock()
_hooked = False
# In a forked child, the parent's objects: finalising them could act on what they share with the parent.
_parents: list[Live] = []


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
