"""Declares a topology, and compares it with the server's, on the channels of one session."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from floodgate.broker.amqp.session import Channel, ChannelRefusedError, MissingQueueError, Session
from floodgate.broker.amqp.topology import (
    Binding,
    Exchange,
    PartitionCount,
    Queue,
    Role,
    Topology,
    arguments,
    exchange_arguments,
)
from floodgate.broker.errors import DeclareRefusedError, TopologyError
from floodgate.broker.settings.model import MOST_PARTITIONS

logger = logging.getLogger("floodgate.rabbitmq")

DECLARE_SECONDS: Final = 60.0  # bound on declaring a topology of the usual size
QUEUE_SECONDS: Final = 0.03  # bound per queue of a large one: RabbitMQ creates some 120 a second on one channel
DECLARING_CHANNELS: Final = 8  # RabbitMQ creates queues in parallel on different channels
_FORBIDDEN: Final = 403
_MAY_NOT: Final = "This RabbitMQ account may not create queues ({}): use the operator's, see docs/security.md."
_CONSUMED: Final = (Role.SEND, Role.UPDATES, Role.LEADER, Role.WORK)


def bound_seconds(topology: Topology) -> float:
    """Return how many seconds declaring or verifying a topology may take."""
    return max(DECLARE_SECONDS, QUEUE_SECONDS * len(topology.queues))


async def declare(topology: Topology, session: Session) -> None:
    """Declare a topology: targets of dead letters and delays first, on one channel, then consumed queues, on several.

    Raises:
        TopologyError: a queue or exchange exists with other arguments, or a bot has another number of partitions.
        DeclareRefusedError: this account may not create queues.
    """
    consumed = [queue for queue in topology.queues if queue.role in _CONSUMED]
    names = {queue.name for queue in consumed}
    channel = await session.channel()
    for count in topology.counts:
        await _record(channel, count, session)
    for exchange in topology.exchanges:
        await _make(channel, exchange, session)
    for queue in topology.queues:
        if queue.role not in _CONSUMED:
            await _make(channel, queue, session)
    for binding in topology.bindings:
        if binding.queue not in names:
            await _bind(channel, binding)
    bindings: dict[str | None, Binding] = {
        binding.queue: binding for binding in topology.bindings if binding.queue in names
    }
    progress = Progress(len(consumed))
    left = iter(consumed)
    declaring = [
        asyncio.create_task(_declare_next(left, bindings, progress, session))
        for _ in range(min(DECLARING_CHANNELS, len(consumed)))
    ]
    try:
        await asyncio.gather(*declaring)
    except BaseException:
        for task in declaring:
            task.cancel()
        await asyncio.wait(declaring)
        raise


async def _declare_next(
    left: Iterator[Queue], bindings: Mapping[str | None, Binding], progress: Progress, session: Session
) -> None:
    channel = await session.channel()
    for queue in left:
        await _make(channel, queue, session)
        if (binding := bindings.get(queue.name)) is not None:
            await _bind(channel, binding)
        progress.count()


async def _record(channel: Channel, count: PartitionCount, session: Session) -> None:
    try:
        for exchange in count.exchanges:
            await _make(channel, exchange, session)
    except DeclareRefusedError:
        raise
    except TopologyError:
        raise TopologyError(_disagreement(count, await recorded(count, session))) from None


async def recorded(count: PartitionCount, session: Session) -> int | None:
    """Return the recorded number of partitions: None if there is none, 0 if its process ended while it recorded it.

    Any account may ask. One call confirms the expected number; to find another takes up to :data:`MOST_PARTITIONS`.
    """
    record, numbered = (exchange.name for exchange in count.exchanges)
    if await _first_exchange([numbered], session) is not None:
        return count.count
    if await _first_exchange([record], session) is None:
        return None
    found = await _first_exchange((f"{record}.{n}" for n in range(1, MOST_PARTITIONS + 1)), session)
    return 0 if found is None else int(found.rpartition(".")[2])


async def _first_exchange(names: Iterable[str], session: Session) -> str | None:
    channel = await session.channel()
    for name in names:
        try:
            await channel.call("exchange_declare", exchange=name, passive=True)
            return name
        except MissingQueueError:
            channel = await session.channel()
    return None


async def check_counts(topology: Topology, session: Session) -> None:
    """Compare the numbers of partitions with the recorded ones, if there are any.

    Raises:
        TopologyError: a bot has another number of partitions.
    """
    for count in topology.counts:
        if (number := await recorded(count, session)) not in (None, 0, count.count):
            raise TopologyError(_disagreement(count, number))


def _disagreement(count: PartitionCount, number: int | None) -> str:
    kind = "update partitions" if count.family == "updates" else "partitions"
    return (
        f"Bot {count.bot!r} has {number or 'another number of'} {kind} on this RabbitMQ and this process has "
        f"{count.count} ({count.setting}), so it would use queues that nobody else does: set "
        f"{count.setting}={number or '…'}, or change the number in every process as docs/operating.md describes."
    )


async def _make(channel: Channel, thing: Exchange | Queue, session: Session) -> None:
    try:
        await _declare_one(channel, thing, session.server_version)
    except ChannelRefusedError as refusal:
        if refusal.code == _FORBIDDEN:
            raise DeclareRefusedError(_MAY_NOT.format(refusal.text)) from None
        raise TopologyError(_difference(thing, session.server_version, refusal)) from None


class Progress:
    """Logs the progress of declaring, once a second."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0
        self._told_at = time.monotonic()

    def count(self) -> None:
        """Count one declared queue."""
        self._done += 1
        if time.monotonic() - self._told_at >= 1:
            self._told_at = time.monotonic()
            logger.info("declaring queues: %d of %d", self._done, self._total)


async def declare_if_allowed(topology: Topology, session: Session) -> None:
    """Declare a topology; an account that may not create queues uses the existing ones.

    Raises:
        TopologyError: a queue or exchange exists with other arguments, or a bot has another number of partitions.
    """
    try:
        await declare(topology, session)
    except DeclareRefusedError as refused:
        logger.info("continuing with the existing queues: %s", refused)
        await check_counts(topology, session)


async def verify(topology: Topology, session: Session) -> list[str]:
    """Return one sentence for everything that is missing or declared differently. Creates nothing."""
    faults: list[str] = []
    for count in topology.counts:
        if (number := await recorded(count, session)) is None:
            faults.append(
                f"The number of {count.family} partitions of bot {count.bot!r} is not recorded. "
                "`floodgate topology apply` records it."
            )
        elif number != count.count:
            faults.append(_disagreement(count, number))
    channel = await session.channel()
    for thing in topology.things:
        try:
            await _declare_one(channel, thing, session.server_version, passive=True)
            await _declare_one(channel, thing, session.server_version)  # it exists: this compares, and creates nothing
        except ChannelRefusedError as refusal:
            faults.append(_fault(thing, session.server_version, refusal))
            channel = await session.channel()
    return faults


async def _declare_one(
    channel: Channel, thing: Exchange | Queue, server: tuple[int, ...], *, passive: bool = False
) -> None:
    common: dict[str, Any] = {"durable": True, "passive": passive}
    match thing:
        case Exchange():
            own: dict[str, Any] = {"exchange": thing.name, "exchange_type": thing.kind}
            await channel.call("exchange_declare", **common, **own, arguments=exchange_arguments(thing))
        case Queue():
            await channel.call("queue_declare", **common, queue=thing.name, arguments=arguments(thing, server))


async def _bind(channel: Channel, binding: Binding) -> None:
    route = {"source" if binding.to_exchange else "exchange": binding.exchange, "routing_key": binding.key}
    if binding.queue is not None:
        await channel.call("queue_bind", queue=binding.queue, **route)
    else:
        await channel.call("exchange_bind", destination=binding.to_exchange, **route)


def _fault(thing: Exchange | Queue, server: tuple[int, ...], refusal: ChannelRefusedError) -> str:
    if refusal.code == _FORBIDDEN:
        return f"{_kind(thing)} {thing.name} cannot be compared. {_MAY_NOT.format(refusal.text)}"
    if isinstance(refusal, MissingQueueError):
        return f"{_kind(thing)} {thing.name} is missing. `floodgate topology apply` creates it."
    return _difference(thing, server, refusal)


def _difference(thing: Exchange | Queue, server: tuple[int, ...], refusal: ChannelRefusedError) -> str:
    ours = arguments(thing, server) if isinstance(thing, Queue) else exchange_arguments(thing)
    return (
        f"{_kind(thing)} {thing.name} exists with other arguments. RabbitMQ says: {refusal.text}. "
        f"Floodgate declares: {ours}. It may hold messages, so it is left alone: drain it and delete it by hand, "
        "or use another vhost."
    )


def _kind(thing: Exchange | Queue) -> str:
    return "Queue" if isinstance(thing, Queue) else "Exchange"
