"""The Dramatiq broker: Floodgate's connections, publisher and partitions behind Dramatiq's interface.

What differs from Dramatiq's own RabbitMQ broker, and why:

- Everything is published persistent, confirmed and ``mandatory``; ``enqueue`` returns when RabbitMQ has the message.
- A delay goes to the ladder in RabbitMQ. There are no ``.DQ`` queues, and no message waits in a worker's memory.
- The actor ``send`` has a family of queues, ``send.<bot>.<priority>.<NN>``: a job's chat picks its partition; and
  ``send.<bot>.answers`` for answers to queries. So has ``handle_update``, ``updates.<bot>.<NN>``.
- A message is acknowledged only when its effect is safe: see :mod:`floodgate.broker.worker.queue_consumer`.
- Dramatiq's default middleware is for plain actors. Jobs and updates have limits, retries and endings of their own.

Constructing a broker opens nothing and starts nothing. Settings are bound once, at the latest at first use.
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
from floodgate.broker.errors import RabbitMQError, RabbitMQUnreachableError, SettingsError, UnroutableError
from floodgate.broker.messages import queue_names
from floodgate.broker.messages.job import SEND_ACTOR, encode_job, parse_job
from floodgate.broker.messages.publication import FRESH_PRIORITY, HIGH_PRIORITY, Publication
from floodgate.broker.messages.update import UPDATE_ACTOR, parse_update, publication
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
# What Dramatiq has for plain actors, and jobs and updates have of their own.
FOR_PLAIN_ACTORS: Final = (AgeLimit, TimeLimit, ShutdownNotifications, Callbacks, Pipelines, Retries)
_OF_A_MESSAGE: Final = frozenset({"process_message", "skip_message"})


def default_middleware() -> list[Middleware]:
    """Dramatiq's defaults, with retries that cannot lose; an event loop, the current message, and admission before
    each send."""
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
    """A Dramatiq broker on RabbitMQ 4 that loses nothing.

    Parameters:
        settings: None reads them from the environment at first use.
        middleware: None gives :func:`default_middleware`.
    """

    def __init__(self, settings: Settings | None = None, *, middleware: list[Middleware] | None = None) -> None:
        super().__init__(middleware=[])
        self.queues: set[str] = set()
        self.stopping = Stopping()
        self.state_thread = StateThread()
        self.worker_id = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._settings = settings
        self._connections: Connections | None = None
        self._admission: BatchedAdmission | None = None
        self._on_callers_loop = False
        self.subscriptions: dict[str, Subscription] = {}  # by queue; of thread workers or of the runner
        self._only: tuple[str, frozenset[str]] | None = None  # family and bots; set before a worker starts
        self._ensured: set[str] = set()  # plain queues that this process has seen on the server
        self._due: dict[str, float] = {}  # by queue, when the last delayed message comes, in time.monotonic()
        self._lock = threading.Lock()  # guards the lazily made fields above
        for each in default_middleware() if middleware is None else middleware:
            self.add_middleware(each)

    def emit_before(self, signal: str, *args: Any, **kwargs: Any) -> None:
        """Dramatiq's, with what is for plain actors left out for jobs and updates."""
        for middleware in self._concerned(signal, args):
            try:
                getattr(middleware, f"before_{signal}")(self, *args, **kwargs)
            except MiddlewareError:
                raise
            except Exception:
                self.logger.critical("Unexpected failure in before_%s of %r.", signal, middleware, exc_info=True)

    def emit_after(self, signal: str, *args: Any, **kwargs: Any) -> None:
        """Dramatiq's likewise. A message whose successor (the next of its pipeline, a callback) RabbitMQ did not take
        goes back to its queue: Dramatiq would acknowledge it all the same."""
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
        with self._lock:
            if self._settings is None:
                self._settings = load_settings()
            return self._settings

    def bind(self, settings: Settings) -> None:
        """Give the broker its settings. They can be replaced until the broker is first used.

        Raises:
            SettingsError: the broker is in use with other settings.
        """
        with self._lock:
            if self._connections is not None and settings != self._settings:
                raise SettingsError("The broker is in use already: configure it before anything is enqueued.")
            self._settings = settings

    @property
    def connections(self) -> Connections:
        settings = self.settings
        with self._lock:
            if self._connections is None:
                self._connections = Connections(settings, "worker", on_callers_loop=self._on_callers_loop)
            return self._connections

    def run_on_callers_loop(self) -> None:
        """Live on the event loop that is running at the first use. To be said before it."""
        self._on_callers_loop = True

    @property
    def rate_limit(self) -> RateLimit:
        """The middleware that gets permits."""
        return next(each for each in self.middleware if isinstance(each, RateLimit))

    @property
    def admission(self) -> BatchedAdmission:
        """The shared state store, opened at first use. Belongs to the event loop of the connections.

        Raises:
            StateUnavailableError: the store cannot be opened.
        """
        settings = self.settings
        with self._lock:
            if self._admission is None:
                self._admission = open_batched(settings, self.state_thread)
            return self._admission

    def declare_queue(self, queue_name: str, *, ensure: bool = False) -> None:
        """Note a queue's name; with ``ensure``, make it on the server."""
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues.add(queue_name)
            if queue_name not in FAMILIES:
                self.emit_after("declare_queue", queue_name)
        if ensure:
            queue_admin.declare(self.connections, self.topology_of([queue_name]))
            self._ensured.add(queue_name)

    def take_only(self, actor_name: str, bots: Iterable[str]) -> None:
        """Consume the queues of one family and of these bots only. To be said before a worker starts."""
        self._only = (actor_name, frozenset(bots))

    def takes(self, actor_name: str) -> bool:
        """Whether this process consumes what is for this actor."""
        return actor_name in self.queues and (self._only is None or self._only[0] == actor_name)

    def get_declared_queues(self) -> set[str]:
        """What this process consumes, by the names on the server: a family's name stands for its partitions."""
        families = {name for actor in FAMILIES if self.takes(actor) for name in self._family(actor)}
        return families if self._only is not None else families | (self.queues - FAMILIES.keys())

    def _family(self, actor_name: str) -> list[str]:
        settings = self.settings
        bots = [bot for bot in settings.require_bots() if self._only is None or bot in self._only[1]]
        if actor_name == UPDATE_ACTOR:
            return [queue_names.updates_queue(bot, n) for bot in bots for n in range(settings.update_partitions)]
        return [name for bot in bots for name in queue_names.send_queues(bot, settings.partitions)]

    def topology_of(self, queue_names: Iterable[str]) -> topology.Topology:
        """What must exist on the server for these queues: of a family's name, for all its partitions."""
        names = set(queue_names)
        partitions = [each for name in names & FAMILIES.keys() for each in self._family(name)]
        return topology.of_queues([*partitions, *(names - FAMILIES.keys())])

    def enqueue(self, message: dramatiq.Message[Any], *, delay: int | None = None) -> dramatiq.Message[Any]:
        """Publish a message; returns when RabbitMQ has it on disk. ``delay`` is in milliseconds.

        A plain actor's queue is made with its first message. Its ``broker_priority`` from 5 up goes before the others;
        a delayed message does so in any case when its time has come.

        Raises:
            PublishError: RabbitMQ did not take it.
            TopologyError: the queue exists and is declared otherwise.
            JobError: the message is for ``send`` and its argument is no job, or for ``handle_update`` and no update.
        """
        queue_name, body = self._address(message)
        publication = Publication("", queue_name, body, message.message_id, _priority(message))
        if delay:
            publication = delayed(publication, timedelta(milliseconds=delay))
        self.emit_before("enqueue", message, delay)
        if in_family(queue_name):
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
        except UnroutableError:  # it was deleted since
            self.declare_queue(queue_name, ensure=True)
            self.connections.publisher.publish(publication)

    def _ensure(self, queue_name: str) -> None:
        """Make a plain queue, once in a process."""
        if queue_name not in self._ensured:
            self.declare_queue(queue_name, ensure=True)

    def _note_due(self, queue_name: str, delay: timedelta) -> None:
        if delay:
            due = time.monotonic() + (steps(delay) * UNIT).total_seconds()
            with self._lock:
                self._due[queue_name] = max(due, self._due.get(queue_name, 0.0))

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 1000) -> Consumer:
        """Consume a queue, ``prefetch`` messages in hand at a time; of jobs and updates as many as keep their order.
        ``timeout`` is in ms.

        Raises:
            ConnectionClosed: Dramatiq's, for its worker to come again: the queue could not be made.
        """
        in_hand = prefetch_of(queue_name) if in_family(queue_name) else prefetch
        if not in_family(queue_name):
            try:
                self._ensure(queue_name)
            except RabbitMQUnreachableError as error:
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
        """Hand a queue back to RabbitMQ for a while."""
        self.subscriptions[queue_name].suspend(seconds)

    def flush(self, queue_name: str) -> None:
        """Drop what is ready in a plain actor's queue, and its dead letters. What waits in the delay ladder stays.

        Raises:
            ValueError: the queue holds jobs or updates.
        """
        if queue_name in FAMILIES or in_family(queue_name):
            raise ValueError(f"{queue_name!r} holds jobs or updates, which are not dropped by the queue.")
        queue_admin.purge(self.connections, [queue_name, queue_names.dead_queue_of(queue_name)])

    def flush_all(self) -> None:
        """:meth:`flush` every queue of a plain actor."""
        for queue_name in self.queues - FAMILIES.keys():
            self.flush(queue_name)

    def get_queue_message_counts(self, queue_name: str) -> tuple[int, int, int]:
        """How many messages are ready in a queue, how many are delayed, and how many are dead letters. For tests.

        The delay ladder is shared by all queues, so of those delayed 1 stands for any that this process has sent.
        """
        names = self._names_of(queue_name)
        dead = {queue_names.dead_queue_of(name) for name in names}
        depth = queue_admin.depth(self.connections, {*names, *dead})
        waiting = any(self._due.get(name, 0.0) > time.monotonic() for name in names)
        return sum(depth[name] or 0 for name in names), int(waiting), sum(depth[name] or 0 for name in dead)

    def join(
        self, queue_name: str, min_successes: int = 10, idle_time: int = 100, *, timeout: int | None = None
    ) -> None:
        """Wait until a queue was found empty ``min_successes`` times in a row, ``idle_time`` ms apart. For tests.

        Messages that this process has delayed are waited for; those that a worker has in hand are not.

        Raises:
            QueueJoinTimeout: it was not so within ``timeout`` ms.
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
        """Stop the connections, then release the store. Safe to call twice and without use."""
        self.stopping.set()
        with self._lock:
            connections, admission = self._connections, self._admission
        if admission is not None and connections is not None:
            with suppress(RabbitMQError, RuntimeError, TimeoutError):  # stopped before, or on the very loop
                connections.io.run(self._close_store(admission), CLOSE_SECONDS)
        if connections is not None:
            connections.stop()

    async def aclose(self) -> None:
        """:meth:`close` on the event loop."""
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
    """The nearest that every RabbitMQ 4 knows: 4, or 9 from 5 up."""
    wanted = message.options.get("broker_priority")
    return HIGH_PRIORITY if wanted is not None and wanted > FRESH_PRIORITY else FRESH_PRIORITY
