"""Administers queues over a process's connections: declares, checks, counts, empties and deletes them."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from floodgate.broker.amqp import declaration
from floodgate.broker.amqp.connections import Connections
from floodgate.broker.amqp.declaration import DECLARE_SECONDS, bound_seconds, declare_if_allowed
from floodgate.broker.amqp.session import MissingQueueError, Session
from floodgate.broker.amqp.topology import Topology


def declare(connections: Connections, topology: Topology, *, must: bool = False) -> None:
    """Make what is missing. Idempotent; touches nothing that exists.

    With an account that may make nothing, what is missing stays so: a job for it is refused, and a consumer waits for
    it. With ``must`` that is an error.

    Raises:
        TopologyError: something exists with other arguments.
        DeclareRefusedError: ``must``, and the account may not.
        RabbitMQUnreachableError: there is no server to ask.
    """
    connections.run(partial(declaration.declare if must else declare_if_allowed, topology), bound_seconds(topology))


async def adeclare(connections: Connections, topology: Topology) -> None:
    """:func:`declare` on an event loop."""
    await connections.arun(partial(declare_if_allowed, topology), bound_seconds(topology))


def verify(connections: Connections, topology: Topology) -> list[str]:
    """What is missing or declared otherwise, one sentence each; empty when all is well. Creates nothing."""
    return connections.run(partial(declaration.verify, topology), bound_seconds(topology))


def depth(connections: Connections, queues: Iterable[str]) -> dict[str, int | None]:
    """How many messages are ready in each queue; None where there is no such queue."""
    return connections.run(partial(_depth, list(queues)), DECLARE_SECONDS)


async def adepth(connections: Connections, queues: Iterable[str]) -> dict[str, int | None]:
    """:func:`depth` on an event loop."""
    return await connections.arun(partial(_depth, list(queues)), DECLARE_SECONDS)


def delete(connections: Connections, queues: Iterable[str]) -> None:
    """Delete queues with all they hold. For what made them for a while (a demo, a benchmark)."""
    connections.run(partial(_delete, list(queues)), DECLARE_SECONDS)


def purge(connections: Connections, queues: Iterable[str]) -> None:
    """Empty queues of what is ready in them; those that are not there are left out."""
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
    counts: dict[str, int | None] = {}
    channel = await session.channel()
    for name in queues:
        try:
            ok = await channel.call("queue_declare", queue=name, passive=True)
            counts[name] = ok.method.message_count
        except MissingQueueError:
            counts[name] = None
            channel = await session.channel()
    return counts
