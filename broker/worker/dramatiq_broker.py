"""The Dramatiq broker: Floodgate's connections, publisher and partitions behind Dramatiq's interface.

Differences from Dramatiq's own RabbitMQ broker:

- Messages are published persistent, confirmed and ``mandatory``; ``enqueue`` returns once RabbitMQ has the message.
- Delayed messages wait in RabbitMQ's delay ladder. There are no ``.DQ`` queues, and none wait in a worker's memory.
- The actor ``send`` has a family of queues: ``send.<bot>.<priority>.<NN>``, where the chat determines the partition,
  and ``send.<bot>.answers`` for answers to queries. The queues of ``handle_update`` are ``updates.<bot>.<NN>``.
- A message is acknowledged only once its effect is durable: see :mod:`floodgate.broker.worker.queue_consumer`.
- Dramatiq's default middleware applies to plain actors only. Jobs and updates have their own limits and retries.

Constructing a broker opens no connection and starts no thread. Settings are bound once, on first use at the latest.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from collections.abc import Iterable
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any, Final

import dramatiq
from dramatiq.broker import Broker, Consumer, MessageProxy
from dramatiq.errors import ConnectionClosed, QueueJoinTimeout
from dramatiq.middleware import (
    AgeLimit,
    AsyncIO,
    Callbacks,
    CurrentMessage,
    Middleware,
    MiddlewareError,
    Pipelines,
    Retries,
    ShutdownNotifications,
    TimeLimit,
)

from floodgate.broker.amqp import queue_admin, topology
from floodgate.broker.amqp.connections import Connections
from floodgate.broker.amqp.consumer import Subscription
from floodgate.broker.amqp.delay_ladder import UNIT, delayed, steps
from floodgate.broker.errors import (
    RabbitMQError,
    RabbitMQUnreachableError,
    SettingsError,
    TopologyError,
    UnroutableError,
)
from floodgate.broker.messages import queue_names
from floodgate.broker.messages.job import SEND_ACTOR, encode_job, parse_job
from floodgate.broker.messages.publication import FRESH_PRIORITY, HIGH_PRIORITY, Publication
from floodgate.broker.messages.trace_context import active_trace
from floodgate.broker.messages.update import UPDATE_ACTOR, parse_update, publication
from floodgate.broker.process.metrics import Metrics
from floodgate.broker.process.stopping import Stopping
from floodgate.broker.settings.model import Settings, load_settings
from floodgate.broker.state.calls import BatchedAdmission
from floodgate.broker.state.stores import open_batched
from floodgate.broker.state.thread import StateThread
from floodgate.broker.worker.middleware.prefetch import PrefetchPerThread
from floodgate.broker.worker.middleware.rate_limit import RateLimit
from floodgate.broker.worker.middleware.retries import ConfirmedRetries
from floodgate.broker.worker.queue_consumer import FAMILIES, QueueConsumer, in_family, prefetch_of

CLOSE_SECONDS: Final = 15.0
# Dramatiq's middleware for plain actors only: jobs and updates have their own limits, retries and follow-ups.
FOR_PLAIN_ACTORS: Final = (AgeLimit, TimeLimit, ShutdownNotifications, Callbacks, Pipelines, Retries)
_OF_A_MESSAGE: Final = frozenset({"process_message", "skip_message"})


def default_middleware() -> list[Middleware]:
    """Dramatiq's default middleware with retries that cannot lose messages, plus ``AsyncIO``, ``CurrentMessage`` and
    admission before each send."""
    return [
        AgeLimit(),
        TimeLimit(),
        ShutdownNotifications(),
        Callbacks(),
        Pipelines(),
        ConfirmedRetries(),
        AsyncIO(),
        CurrentMessage(),
        PrefetchPerThread(),
        RateLimit(),
    ]


class FloodgateBroker(Broker):
    """A Dramatiq broker for RabbitMQ 4 that loses no messages.

    Args:
        settings: None reads them from the environment on first use.
        middleware: None uses :func:`default_middleware`.
    """

    def __init__(self, settings: Settings | None = None, *, middleware: list[Middleware] | None = None) -> None:
        super().__init__(middleware=[])
        self.queues: set[str] = set()
        self.stopping = Stopping()
        self.metrics = Metrics()  # a process that serves them replaces this before the first use
        self.state_thread = StateThread()
        self.worker_id = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._settings = settings
        self._connections: Connections | None = None
        self._admission: BatchedAdmission | None = None
        self._on_callers_loop = False
        self.subscriptions: dict[str, Subscription] = {}  # by queue; used by worker threads or by the runner
        self._only: tuple[str, frozenset[str]] | None = None  # family and bots; set before a worker starts
        self._ensured: set[str] = set()  # plain queues that this process has seen on the server
        self._agreed: set[str] = set()  # families of a bot, as in "send.news", whose number of partitions was compared
        self._due: dict[str, float] = {}  # by queue: when the last delayed message is due, in time.monotonic()
        self._lock = threading.Lock()  # guards the lazily created fields above
        for each in default_middleware() if middleware is None else middleware:
            self.add_middleware(each)

    def emit_before(self, signal: str, *args: Any, **kwargs: Any) -> None:
        """Emit a signal as Dramatiq does. For jobs and updates, middleware for plain actors is skipped."""
        for middleware in self._concerned(signal, args):
            try:
                getattr(middleware, f"before_{signal}")(self, *args, **kwargs)
            except MiddlewareError:
                raise
            except Exception:
                self.logger.critical("Unexpected failure in before_%s of %r.", signal, middleware, exc_info=True)

    def emit_after(self, signal: str, *args: Any, **kwargs: Any) -> None:
        """Emit a signal as Dramatiq does. For jobs and updates, middleware for plain actors is skipped.

        A message whose successor (the next message of a pipeline, or a callback) could not be published returns to its
        queue; Dramatiq would acknowledge it anyway.
        """
        for middleware in reversed(self._concerned(signal, args)):
            try:
                getattr(middleware, f"after_{signal}")(self, *args, **kwargs)
            except Exception as error:
                self.logger.critical("Unexpected failure in after_%s of %r.", signal, middleware, exc_info=True)
                if isinstance(error, RabbitMQError | MiddlewareError) and signal in _OF_A_MESSAGE:
                    args[0].give_back()

    def _concerned(self, signal: str, args: tuple[Any, ...]) -> list[Middleware]:
        if signal in _OF_A_MESSAGE and args[0].actor_name in FAMILIES:
            return [each for each in self.middleware if not isinstance(each, FOR_PLAIN_ACTORS)]
        return self.middleware

    @property
    def settings(self) -> Settings:
        """The bound settings, read from the environment if none were bound.

        Raises:
            SettingsError: the environment's settings are invalid.
        """
        with self._lock:
            if self._settings is None:
                self._settings = load_settings()
            return self._settings

    def bind(self, settings: Settings) -> None:
        """Bind the broker's settings. They can be replaced until the broker is first used.

        Raises:
            SettingsError: the broker is already in use with different settings.
        """
        with self._lock:
            if self._connections is not None and settings != self._settings:
                raise SettingsError("The broker is already in use: configure it before enqueuing anything.")
            self._settings = settings

    @property
    def connections(self) -> Connections:
        """The process's connections to RabbitMQ, created on first use."""
        settings = self.settings
        with self._lock:
            if self._connections is None:
                self._connections = Connections(
                    settings, "worker", on_callers_loop=self._on_callers_loop, metrics=self.metrics
                )
            return self._connections

    def run_on_callers_loop(self) -> None:
        """Use the event loop that is running when the broker is first used. Call this before then."""
        self._on_callers_loop = True

    @property
    def rate_limit(self) -> RateLimit:
        """The middleware that obtains permits."""
        return next(each for each in self.middleware if isinstance(each, RateLimit))

    @property
    def admission(self) -> BatchedAdmission:
        """The shared state store, opened on first use. Belongs to the event loop of the connections.

        Raises:
            StateUnavailableError: the store cannot be opened.
        """
        settings = self.settings
        with self._lock:
            if self._admission is None:
                self._admission = open_batched(settings, self.state_thread)
            return self._admission

    def declare_queue(self, queue_name: str, *, ensure: bool = False) -> None:
        """Register a queue's name; with ``ensure``, also declare it on the server."""
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues.add(queue_name)
            if queue_name not in FAMILIES:
                self.emit_after("declare_queue", queue_name)
        if ensure:
            queue_admin.declare(self.connections, self.topology_of([queue_name]))
            self._ensured.add(queue_name)

    def take_only(self, actor_name: str, bots: Iterable[str]) -> None:
        """Restrict this process to one actor's family of queues and to these bots. Call this before a worker starts."""
        self._only = (actor_name, frozenset(bots))

    def takes(self, actor_name: str) -> bool:
        """Whether this process consumes this actor's queues."""
        return actor_name in self.queues and (self._only is None or self._only[0] == actor_name)

    def get_declared_queues(self) -> set[str]:
        """Names on the server of the queues that this process consumes, with each family expanded to its partitions."""
        families = {name for actor in FAMILIES if self.takes(actor) for name in self._family(actor)}
        return families if self._only is not None else families | (self.queues - FAMILIES.keys())

    def _family(self, actor_name: str) -> list[str]:
        settings = self.settings
        bots = [bot for bot in settings.require_bots() if self._only is None or bot in self._only[1]]
        if actor_name == UPDATE_ACTOR:
            return [queue_names.updates_queue(bot, n) for bot in bots for n in range(settings.update_partitions)]
        return [name for bot in bots for name in queue_names.send_queues(bot, settings.partitions)]

    def topology_of(self, queue_names: Iterable[str]) -> topology.Topology:
        """The topology that these queues need on the server. A family's name stands for all its partitions."""
        names = set(queue_names)
        partitions = [each for name in names & FAMILIES.keys() for each in self._family(name)]
        return topology.of_queues([*partitions, *(names - FAMILIES.keys())], self.settings)

    def enqueue(self, message: dramatiq.Message[Any], *, delay: int | None = None) -> dramatiq.Message[Any]:
        """Publish a message and return once RabbitMQ has it on disk.

        A plain actor's queue is declared with its first message. Messages with a ``broker_priority`` of 5 or more
        overtake the others, and so does a delayed message once it is due.

        Args:
            message: the message to publish.
            delay: in milliseconds.

        Raises:
            PublishError: RabbitMQ did not confirm the message.
            TopologyError: the queue exists with a different declaration, or the bot has another number of partitions.
            JobError: the message is for ``send`` or ``handle_update`` and its argument is not a valid job or update.
        """
        queue_name, body = self._address(message)
        publication = Publication("", queue_name, body, message.message_id, _priority(message), active_trace())
        if delay:
            publication = delayed(publication, timedelta(milliseconds=delay))
        self.emit_before("enqueue", message, delay)
        if in_family(queue_name):
            self._agree(queue_name)
            self.connections.publisher.publish(publication)
        else:
            self._publish_to_plain(queue_name, publication)
            self._note_due(queue_name, timedelta(milliseconds=delay or 0))
        self.emit_after("enqueue", message, delay)
        return message

    def _address(self, message: dramatiq.Message[Any] | MessageProxy) -> tuple[str, bytes]:
        if message.actor_name == UPDATE_ACTOR:
            update = publication(parse_update(message.kwargs.get("update")), self.settings.update_partitions)
            return update.routing_key, update.body
        if message.actor_name != SEND_ACTOR:
            self.declare_queue(message.queue_name)
            return message.queue_name, message.encode()
        job = parse_job(message.kwargs.get("job"))
        queue_name = queue_names.home_of(job, self.settings.partitions)
        return queue_name, encode_job(job, queue_name)

    def _publish_to_plain(self, queue_name: str, publication: Publication) -> None:
        self._ensure(queue_name)
        try:
            self.connections.publisher.publish(publication)
        except UnroutableError:  # the queue has been deleted since
            self.declare_queue(queue_name, ensure=True)
            self.connections.publisher.publish(publication)

    def _ensure(self, queue_name: str) -> None:
        """Declare a plain actor's queue, once per process."""
        if queue_name not in self._ensured:
            self.declare_queue(queue_name, ensure=True)

    def _agree(self, queue_name: str) -> None:
        """Compare a bot's number of partitions with the recorded one, once per process."""
        family = ".".join(queue_name.split(".")[:2])
        if family not in self._agreed:
            queue_admin.check_counts(self.connections, self.topology_of([queue_name]))
            self._agreed.add(family)

    def _note_due(self, queue_name: str, delay: timedelta) -> None:
        if delay:
            due = time.monotonic() + (steps(delay) * UNIT).total_seconds()
            with self._lock:
                self._due[queue_name] = max(due, self._due.get(queue_name, 0.0))

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 1000) -> Consumer:
        """Consume a queue.

        Args:
            queue_name: the name on the server.
            prefetch: unacknowledged messages at a time. Queues of jobs and updates use a fixed number, which keeps
                their order.
            timeout: how long the consumer waits for the next message, in milliseconds.

        Raises:
            ConnectionClosed: the queue could not be declared, or the bot has another number of partitions; Dramatiq's
                worker tries again.
        """
        in_hand = prefetch_of(queue_name) if in_family(queue_name) else prefetch
        try:
            (self._agree if in_family(queue_name) else self._ensure)(queue_name)
        except (RabbitMQUnreachableError, TopologyError) as error:
            raise ConnectionClosed(error) from error  # type: ignore[no-untyped-call]  # Dramatiq's

        def subscribe(on_delivery: Any) -> Subscription:
            return self.connections.subscribe(
                queue_name, self.worker_id, on_delivery, partial(self.topology_of, [queue_name]), prefetch=in_hand
            )

        consumer = QueueConsumer(
            queue_name,
            subscribe,
            self.connections.publisher,
            timeout / 1000,
            self.stopping,
        )
        self.subscriptions[queue_name] = consumer.subscription
        return consumer

    def suspend(self, queue_name: str, seconds: float) -> None:
        """Stop consuming a queue for a time, so that its messages stay in RabbitMQ."""
        self.subscriptions[queue_name].suspend(seconds)

    def flush(self, queue_name: str) -> None:
        """Drop the ready messages of a plain actor's queue and its dead letters. Messages in the delay ladder remain.

        Raises:
            ValueError: the queue holds jobs or updates.
        """
        if queue_name in FAMILIES or in_family(queue_name):
            raise ValueError(f"{queue_name!r} holds jobs or updates, which cannot be flushed.")
        queue_admin.purge(self.connections, [queue_name, queue_names.dead_queue_of(queue_name)])

    def flush_all(self) -> None:
        """:meth:`flush` the queues of all plain actors."""
        for queue_name in self.queues - FAMILIES.keys():
            self.flush(queue_name)

    def get_queue_message_counts(self, queue_name: str) -> tuple[int, int, int]:
        """Numbers of ready messages, of delayed messages and of dead letters of a queue. For tests.

        All queues share the delay ladder, so the second number is only 1 or 0: whether a message that this process has
        delayed is still due.
        """
        names = self._names_of(queue_name)
        dead = {queue_names.dead_queue_of(name) for name in names}
        depth = queue_admin.depth(self.connections, {*names, *dead})
        waiting = any(self._due.get(name, 0.0) > time.monotonic() for name in names)
        return sum(depth[name] or 0 for name in names), int(waiting), sum(depth[name] or 0 for name in dead)

    def join(
        self, queue_name: str, min_successes: int = 10, idle_time: int = 100, *, timeout: int | None = None
    ) -> None:
        """Wait until a queue is empty ``min_successes`` times in a row, checked every ``idle_time`` ms. For tests.

        Waits for messages that this process has delayed, but not for those that a worker is processing.

        Raises:
            QueueJoinTimeout: the queue was not empty within ``timeout`` ms.
        """
        deadline = None if timeout is None else time.monotonic() + timeout / 1000
        successes = 0
        while successes < min_successes:
            if deadline is not None and time.monotonic() >= deadline:
                raise QueueJoinTimeout(queue_name)  # type: ignore[no-untyped-call]  # Dramatiq's
            successes = 0 if any(self.get_queue_message_counts(queue_name)[:-1]) else successes + 1
            time.sleep(idle_time / 1000)

    def _names_of(self, queue_name: str) -> list[str]:
        return self._family(queue_name) if queue_name in FAMILIES else [queue_name]

    def close(self) -> None:
        """Close the state store and the connections. Safe to call twice, and on an unused broker."""
        self.stopping.set()
        with self._lock:
            connections, admission = self._connections, self._admission
        if admission is not None and connections is not None:
            with suppress(RabbitMQError, RuntimeError, TimeoutError):  # stopped before, or on the very loop
                connections.io.run(self._close_store(admission), CLOSE_SECONDS)
        if connections is not None:
            connections.stop()

    async def aclose(self) -> None:
        """Do the same as :meth:`close` on the event loop."""
        self.stopping.set()
        with self._lock:
            connections, admission = self._connections, self._admission
        if connections is not None:
            await connections.aclose()
        if admission is not None:
            await self._close_store(admission)

    async def _close_store(self, admission: BatchedAdmission) -> None:
        await admission.close()
        await self.state_thread.stop()


def _priority(message: dramatiq.Message[Any]) -> int:
    """The nearest priority that every RabbitMQ 4 distinguishes: 4, or 9 for priorities of 5 and more."""
    wanted = message.options.get("broker_priority")
    return HIGH_PRIORITY if wanted is not None and wanted > FRESH_PRIORITY else FRESH_PRIORITY
