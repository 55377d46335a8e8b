"""Administers queues over a process's connections: declares, checks, counts, empties and deletes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from floodgate.broker.amqp import declaration
from floodgate.broker.amqp.connections import Connections
from floodgate.broker.amqp.declaration import DECLARE_SECONDS, QUEUE_SECONDS, bound_seconds, declare_if_allowed
from floodgate.broker.amqp.session import Channel, MissingQueueError, Session
from floodgate.broker.amqp.topology import PartitionCount, Topology
from floodgate.broker.errors import TopologyError
from floodgate.broker.settings.model import MOST_PARTITIONS


@dataclass(frozen=True, slots=True)
class QueueLoad:
    """The ready messages and the consumers of a queue.

    RabbitMQ reports 0 of both if a quorum queue's leader does not answer it within 250 ms. So such a queue is asked
    about twice.
    """

    messages: int
    consumers: int


def declare(connections: Connections, topology: Topology, *, must: bool = False) -> None:
    """Create missing queues and exchanges. Idempotent; does not change existing ones.

    If the account may not create queues, they stay missing: jobs for them are refused, and consumers wait for them.
    With ``must`` that is an error.

    Raises:
        TopologyError: a queue or exchange exists with other arguments, or a bot has another number of partitions.
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


def check_counts(connections: Connections, topology: Topology) -> None:
    """Compare the numbers of partitions with those recorded on the server, if there are any.

    Raises:
        TopologyError: a bot has another number of partitions.
    """
    connections.run(partial(declaration.check_counts, topology), DECLARE_SECONDS)


def forget_other_counts(connections: Connections, counts: Iterable[PartitionCount]) -> None:
    """Delete the records of other numbers of partitions, so that these can be recorded.

    Raises:
        TopologyError: a queue is consumed, or one beyond the new number holds messages. Nothing was deleted.
    """
    counts = list(counts)
    connections.run(partial(_forget_other_counts, counts), _bound_seconds(counts))


def partition_loads(connections: Connections, counts: Iterable[PartitionCount]) -> dict[str, QueueLoad]:
    """Return the loads of the partitions that exist, and of those beyond the counts, up to the first that is missing:
    a process with another number may have created them."""
    counts = list(counts)
    return connections.run(partial(_partition_loads, counts), _bound_seconds(counts))


def loads(connections: Connections, queues: Iterable[str]) -> dict[str, QueueLoad]:
    """Return the loads of those queues that exist."""
    queues = list(queues)
    found = connections.run(partial(_loads, queues), max(DECLARE_SECONDS, QUEUE_SECONDS * len(queues)))
    return {name: load for name, load in found.items() if load is not None}


def unread(loads: Mapping[str, QueueLoad]) -> dict[str, int]:
    """Return the number of messages in each queue that has some, and no consumer."""
    return {name: load.messages for name, load in loads.items() if load.messages and not load.consumers}


def _bound_seconds(counts: list[PartitionCount]) -> float:
    return max(DECLARE_SECONDS, QUEUE_SECONDS * sum(len(count.queues) for count in counts))


def depth(connections: Connections, queues: Iterable[str]) -> dict[str, int | None]:
    """Return the number of ready messages in each queue; None for a queue that does not exist."""
    return connections.run(partial(_depth, list(queues)), DECLARE_SECONDS)


async def adepth(connections: Connections, queues: Iterable[str]) -> dict[str, int | None]:
    """Do the same as :func:`depth` on an event loop."""
    return await connections.arun(partial(_depth, list(queues)), DECLARE_SECONDS)


async def aloads(connections: Connections, queues: Iterable[str]) -> dict[str, QueueLoad | None]:
    """Return the load of each queue; None for a queue that does not exist."""
    return await connections.arun(partial(_loads, list(queues)), DECLARE_SECONDS)


def delete(connections: Connections, queues: Iterable[str], counts: Iterable[PartitionCount] = ()) -> None:
    """Delete queues with all their messages, and records of their number: for a demo or benchmark that made them."""
    connections.run(partial(_delete, list(queues), list(counts)), DECLARE_SECONDS)


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


async def _delete(queues: list[str], counts: list[PartitionCount], session: Session) -> None:
    channel = await session.channel()
    for name in queues:
        await channel.call("queue_delete", queue=name)
    for count in counts:
        for exchange in reversed(count.exchanges):  # without the first, there is no record
            await channel.call("exchange_delete", exchange=exchange.name)


async def _forget_other_counts(counts: list[PartitionCount], session: Session) -> None:
    others: list[PartitionCount] = []
    for count in counts:
        if (number := await declaration.recorded(count, session)) not in (None, count.count):
            others.append(replace(count, count=number))
            await _check_change(count, others[-1], session)
    await _delete([], others, session)


async def _check_change(new: PartitionCount, old: PartitionCount, session: Session) -> None:
    for name, load in (await _partition_loads([max(new, old, key=lambda count: count.count)], session)).items():
        if load.consumers:
            raise TopologyError(
                f"{name} has a consumer: stop all processes that use {new.setting} before you change the number."
            )
        if load.messages and name not in new.queues:
            raise TopologyError(
                f"{name} is not empty (messages in it: {load.messages}), and nobody would read it with {new.setting}="
                f"{new.count}: run workers with {new.setting}={old.count} until it is."
            )


async def _partition_loads(counts: list[PartitionCount], session: Session) -> dict[str, QueueLoad]:
    loads: dict[str, QueueLoad | None] = {}
    for count in counts:
        loads |= await _loads(count.queues, session)
        for number in range(count.count, MOST_PARTITIONS):
            beyond = await _loads(count.partitions([number]), session)
            if not any(beyond.values()):
                break
            loads |= beyond
    return {name: load for name, load in loads.items() if load is not None}


async def _depth(queues: list[str], session: Session) -> dict[str, int | None]:
    loads = await _loads(queues, session)
    return {name: None if load is None else load.messages for name, load in loads.items()}


async def _loads(queues: list[str], session: Session) -> dict[str, QueueLoad | None]:
    loads: dict[str, QueueLoad | None] = {}
    channel = await session.channel()
    for name in queues:
        try:
            loads[name] = await _load(name, channel) or await _load(name, channel) or QueueLoad(0, 0)
        except MissingQueueError:
            loads[name] = None
            channel = await session.channel()
    return loads


async def _load(name: str, channel: Channel) -> QueueLoad | None:
    """None if the queue has neither messages nor consumers, or its leader was slow to answer."""
    ok = await channel.call("queue_declare", queue=name, passive=True)
    load = QueueLoad(ok.method.message_count, ok.method.consumer_count)
    return load if load.messages or load.consumers else None
