"""The Dramatiq broker: Floodgate's connections, publisher and partitions behind Dramatiq's interface.

What differs from Dramatiq's own RabbitMQ broker, and why:

- Everything is published persistent, confirmed and ``mandatory``; ``enqueue`` returns when RabbitMQ has the message.
- A delay goes to the ladder in RabbitMQ. There are no ``.DQ`` queues, and no message waits in a worker's memory.
- The actor ``send`` has a family of queues, ``send.<bot>.<priority>.<NN>``: a job's chat picks its partition. So has
  ``handle_update``, ``updates.<bot>.<NN>``.
- A message is acknowledged only when its effect is safe: see :mod:`broker.dramatiq_consumer`.

Constructing a broker opens nothing and starts nothing. Settings are bound once, at the latest at first use.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import uuid
from collections.abc import Iterable
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any, Final

import dramatiq
from dramatiq.broker import Broker, Consumer, MessageProxy
from dramatiq.middleware import AsyncIO, CurrentMessage, Middleware

from broker import topology
from broker.admission.calls import BatchedAdmission
from broker.admission.state_thread import StateThread
from broker.admission.stores import open_batched
from broker.connections import Connections
from broker.consumer import Subscription
from broker.dramatiq_consumer import QueueConsumer
from broker.errors import RabbitMQError, SettingsError
from broker.job import SEND_ACTOR, Priority, encode_job, parse_job
from broker.ladder import delayed
from broker.middleware.rate_limit import RateLimit
from broker.middleware.retries import ConfirmedRetries
from broker.publication import Publication
from broker.settings import Settings, load_settings
from broker.stopping import Stopping
from broker.update import UPDATE_ACTOR, parse_update, publication

CLOSE_SECONDS: Final = 15.0

# Actors that have a family of queues, and how the family's names begin.
FAMILIES: Final = {SEND_ACTOR: "send.", UPDATE_ACTOR: "updates."}


def default_middleware() -> list[Middleware]:
    """What actors need: an event loop, the current message, retries that cannot lose, admission before each send."""
    return [AsyncIO(), CurrentMessage(), ConfirmedRetries(), RateLimit()]


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
        self._lock = threading.Lock()  # guards the lazily made fields above
        for each in default_middleware() if middleware is None else middleware:
            self.add_middleware(each)

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
            topology.declare(self.connections, self.topology_of([queue_name]))

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
            return [topology.updates_queue(bot, n) for bot in bots for n in range(settings.update_partitions)]
        return [
            topology.send_queue(bot, priority, n)
            for bot in bots
            for priority in Priority
            for n in range(settings.partitions)
        ]

    def topology_of(self, queue_names: Iterable[str]) -> topology.Topology:
        """What must exist on the server for these queues: of a family's name, for all its partitions."""
        names = set(queue_names)
        partitions = [each for name in names & FAMILIES.keys() for each in self._family(name)]
        return topology.of_queues([*partitions, *(names - FAMILIES.keys())])

    def enqueue(self, message: dramatiq.Message[Any], *, delay: int | None = None) -> dramatiq.Message[Any]:
        """Publish a message; returns when RabbitMQ has it on disk. ``delay`` is in milliseconds.

        Raises:
            PublishError: RabbitMQ did not take it.
            JobError: the message is for ``send`` and its argument is no job, or for ``handle_update`` and no update.
        """
        queue_name, body = self._address(message)
        publication = Publication("", queue_name, body, message.message_id)
        if delay:
            publication = delayed(publication, timedelta(milliseconds=delay))
        self.emit_before("enqueue", message, delay)
        self.connections.publisher.publish(publication)
        self.emit_after("enqueue", message, delay)
        return message

    def _address(self, message: dramatiq.Message[Any] | MessageProxy) -> tuple[str, bytes]:
        if message.actor_name == UPDATE_ACTOR:
            update = publication(parse_update(message.kwargs.get("update")), self.settings.update_partitions)
            return update.routing_key, update.body
        if message.actor_name != SEND_ACTOR:
            self.declare_queue(message.queue_name)
            return message.queue_name, json.dumps(message.asdict(), separators=(",", ":")).encode()
        job = parse_job(message.kwargs.get("job"))
        queue_name = topology.send_queue(job.bot, job.priority, job.partition(self.settings.partitions))
        return queue_name, encode_job(job, queue_name)

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 1000) -> Consumer:
        """Consume a queue, one message in hand at a time whatever ``prefetch`` says. ``timeout`` is in ms."""

        def subscribe(on_delivery: Any) -> Subscription:
            return self.connections.subscribe(
                queue_name, self.worker_id, on_delivery, partial(self.topology_of, [queue_name])
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
