"""Administers queues over a process's connections: declares, checks, counts, empties and deletes them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

from floodgate.broker.amqp import declaration
from floodgate.broker.amqp.connections import Connections
from floodgate.broker.amqp.declaration import DECLARE_SECONDS, bound_seconds, declare_if_allowed
from floodgate.broker.amqp.session import MissingQueueError, Session
from floodgate.broker.amqp.topology import Topology


@dataclass(frozen=True, slots=True)
class QueueLoad:
    """The ready messages and the consumers of a queue."""

    messages: int
    consumers: int


def declare(connections: Connections, topology: Topology, *, must: bool = False) -> None:
    """Create missing queues and exchanges. Idempotent; does not change existing ones.

    If the account may not create queues, they stay missing: jobs for them are refused, and consumers wait for them.
    With ``must`` that is an error.

    Raises:
        TopologyError: a queue or exchange exists with other arguments.
        DeclareRefusedError: ``must`` is set and the account may not create queues.
        RabbitMQUnreachableError: no server can be reached.
    """
    connections.run(partial(declaration.declare if must else declare_if_allowed, topology), bound_seconds(topology))


async def adeclare(connections: Connections, topology: Topology) -> None:
    """Do the same as :func:`declare` on an event loop."""
    await connections.arun(partial(declare_if_allowed, topology), bound_seconds(topology))


def verify(connections: Connections, topology: Topology) -> list[str]:
    """Return one sentence for everything that is missing or has other arguments. Creates nothing."""
    return connections.run(partial(declaration.verify, topology), bound_seconds(topology))


def depth(connections: Connections, queues: Iterable[str]) -> dict[str, int | None]:
    """Return the number of ready messages in each queue; None for a queue that does not exist."""
    return connections.run(partial(_depth, list(queues)), DECLARE_SECONDS)


async def adepth(connections: Connections, queues: Iterable[str]) -> dict[str, int | None]:
    """Do the same as :func:`depth` on an event loop."""
    return await connections.arun(partial(_depth, list(queues)), DECLARE_SECONDS)


async def aloads(connections: Connections, queues: Iterable[str]) -> dict[str, QueueLoad | None]:
    """Return the load of each queue; None for a queue that does not exist."""
    return await connections.arun(partial(_loads, list(queues)), DECLARE_SECONDS)


def delete(connections: Connections, queues: Iterable[str]) -> None:
    """Delete queues with all their messages, for a demo or a benchmark that created them."""
    connections.run(partial(_delete, list(queues)), DECLARE_SECONDS)


def purge(connections: Connections, queues: Iterable[str]) -> None:
    """Delete the ready messages of queues. Queues that do not exist are ignored."""
    connections.run(partial(_purge, list(queues)), DECLARE_SECONDS)


async def _purge(queues: list[str], session: Session) -> None:
    channel = await session.channel()
    for name in queues:
        try:
            await channel.call("queue_purge", queue=name)
        except MissingQueueError:
            channel = await session.channel()


async def _delete(queues: list[str], session: Session) -> None:
    channel = await session.channel()
    for name in queues:
        await channel.call("queue_delete", queue=name)


async def _depth(queues: list[str], session: Session) -> dict[str, int | None]:
    loads = await _loads(queues, session)
    return {name: None if load is None else load.messages for name, load in loads.items()}


async def _loads(queues: list[str], session: Session) -> dict[str, QueueLoad | None]:
    loads: dict[str, QueueLoad | None] = {}
    channel = await session.channel()
    for name in queues:
        try:
            ok = await channel.call("queue_declare", queue=name, passive=True)
            loads[name] = QueueLoad(ok.method.message_count, ok.method.consumer_count)
        except MissingQueueError:
            loads[name] = None
            channel = await session.channel()
    return loads
