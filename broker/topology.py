"""What exists on the server, as values; and the functions that make, check and count it.

    send.<bot>.<priority>.<NN>    jobs, one partition each          ─▶ dead.<bot>      past the delivery limit
    send.<bot>.answers            answers to queries, in no order   ─▶ dead.<bot>
    updates.<bot>.<NN>            updates, one partition each       ─▶ dead.<bot>
    leader.<bot>                  the token that makes a receiver the active one
    <name>                        any other Dramatiq actor's queue  ─▶ dead.<name>
    floodgate.dead                exchange: a dead letter to its queue by name
    dead.<bot>, dead.malformed    what waits for an operator, for a time (:mod:`floodgate.broker.retention`)
    floodgate.delay.27 … .00      the ladder (:mod:`floodgate.broker.ladder`), then floodgate.delay.deliver
    dead.unroutable               what left the ladder for a queue that is not there

All queues are quorum queues. Arguments say what a queue *is*; numbers one may want to tune are better set by
a policy. They come from one function, :func:`arguments`. What exists with other arguments is reported, never
deleted: it may hold messages.

A target that is missing must not block the ladder: dead-lettering at least once holds a message for ever that
it cannot route, and all behind it. So the last exchange has an alternate, which leads to ``dead.unroutable``.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from floodgate.broker import ladder
from floodgate.broker.errors import DeclareRefusedError, TopologyError
from floodgate.broker.job import Job, Priority
from floodgate.broker.session import Channel, ChannelRefusedError, Session

if TYPE_CHECKING:
    from floodgate.broker.connections import Connections
    from floodgate.broker.settings import Settings

logger = logging.getLogger("floodgate.rabbitmq")

DEAD_EXCHANGE: Final = "floodgate.dead"
UNROUTABLE_EXCHANGE: Final = "floodgate.unroutable"
MALFORMED_QUEUE: Final = "dead.malformed"
UNROUTABLE_QUEUE: Final = "dead.unroutable"
# How often a message may come back without an answer (its worker died on it) before it is taken for poison.
DELIVERY_LIMIT: Final = 20
# Looking at a dead letter and putting it back counts as a delivery, and it must survive any number of looks.
# Without a limit (-1) it would go to the end of its queue each time: with one, it keeps its place. (Tried on
# 4.0.5.)
LOOKS: Final = 1_000_000_000
DECLARE_SECONDS: Final = 60.0  # bound on one declare of the usual size
QUEUE_SECONDS: Final = 0.03  # and on each queue of a large one: RabbitMQ makes some 120 a second on one channel
DECLARING_CHANNELS: Final = 8  # RabbitMQ makes queues of different channels side by side

_FORBIDDEN: Final = 403
_MAY_NOT: Final = "This RabbitMQ account may not make queues ({}): use the operator's, see docs/security.md."

# Queues named <family>.<bot>.…, and how many more dots their names have. So has an answers queue, which has fewer.
_FAMILIES: Final = {"send": 2, "updates": 1}
_ANSWERS_NAME: Final = re.compile(r"send\.[^.]+\.answers")

Arguments = dict[str, Any]

logger = logging.getLogger("floodgate.rabbitmq")


class Role(Enum):
    """What a queue is for, and so what it is."""

    SEND = auto()  # one partition of jobs, or a bot's answers: one consumer at a time
    UPDATES = auto()  # one partition of updates: likewise
    LEADER = auto()  # one token that one receiver holds: never empty for long, never more than one waiting
    WORK = auto()  # any other actor's messages: as many consumers as there are
    LEVEL = auto()  # one level of the delay ladder
    DEAD = auto()  # what waits for an operator


_CONSUMED: Final = (Role.SEND, Role.UPDATES, Role.LEADER, Role.WORK)


@dataclass(frozen=True, slots=True)
class Exchange:
    name: str
    kind: str
    alternate: str | None = None


@dataclass(frozen=True, slots=True)
class Queue:
    name: str
    role: Role
    dead_letters: str | None = None
    """The queue that takes what passed the delivery limit."""
    level: int | None = None
    """Of a LEVEL, its number."""


@dataclass(frozen=True, slots=True)
class Binding:
    exchange: str
    key: str
    queue: str | None = None
    to_exchange: str | None = None


@dataclass(frozen=True, slots=True)
class Topology:
    """What must exist. The order is that of declaring: targets before what points at them."""

    exchanges: tuple[Exchange, ...]
    queues: tuple[Queue, ...]
    bindings: tuple[Binding, ...]

    @property
    def things(self) -> tuple[Exchange | Queue, ...]:
        return (*self.exchanges, *self.queues)


def send_queue(bot: str, priority: str, n: int) -> str:
    """The name of a partition: two digits, three from 100 up."""
    return f"send.{bot}.{priority}.{n:02}"


def answers_queue(bot: str) -> str:
    """The name of the queue of a bot's answers to queries."""
    return f"send.{bot}.answers"


def is_answers_queue(name: str) -> bool:
    return _ANSWERS_NAME.fullmatch(name) is not None


def home_of(job: Job, partitions: int) -> str:
    """The queue that a job belongs in: its chat's partition, or that of its bot's answers."""
    if job.answers_query:
        return answers_queue(job.bot)
    return send_queue(job.bot, job.priority, job.partition(partitions))


def send_queues(bot: str, partitions: int) -> list[str]:
    """All queues of a bot's jobs; none without partitions."""
    names = [send_queue(bot, priority, n) for priority in Priority for n in range(partitions)]
    return [*names, answers_queue(bot)] if partitions else []


def updates_queue(bot: str, n: int) -> str:
    """The name of a partition of updates."""
    return f"updates.{bot}.{n:02}"


def leader_queue(bot: str) -> str:
    """The name of the queue that says which receiver is the active one."""
    return f"leader.{bot}"


def dead_queue(owner: str) -> str:
    """The name of a bot's dead letters, or of another actor queue's."""
    return f"dead.{owner}"


def dead_queues(bots: Iterable[str]) -> list[str]:
    """Where dead letters lie: each bot's, and what belongs to none."""
    return [*map(dead_queue, sorted(bots)), UNROUTABLE_QUEUE, MALFORMED_QUEUE]


def dead_queue_of(queue: str) -> str:
    """Where the dead letters of a queue go: ``send.news.bulk.03`` and ``updates.news.03`` to ``dead.news``, ``mail``
    to ``dead.mail``."""
    return dead_queue(queue.split(".")[1] if family_of(queue) else queue)


def pipeline(
    bots: Iterable[str], partitions: int, *, update_partitions: int = 0, work_queues: Iterable[str] = ()
) -> Topology:
    """All that the bots' jobs and updates, and the other actors' messages, need.

    Parameters:
        partitions: of jobs; 0 for a process that has nothing to do with them.
        update_partitions: likewise of updates.

    Raises:
        TopologyError: a queue's name cannot be used in a routing pattern.
    """
    bots = list(bots)
    names = [name for bot in bots for name in send_queues(bot, partitions)]
    names += [updates_queue(bot, n) for bot in bots for n in range(update_partitions)]
    leaders = [leader_queue(bot) for bot in bots if update_partitions]
    return _around([*map(_target, names), *map(_work, sorted(work_queues))], leaders)


def pipeline_of(settings: Settings, bots: Iterable[str]) -> Topology:
    """:func:`pipeline` with the settings' numbers of partitions."""
    return pipeline(sorted(bots), settings.partitions, update_partitions=settings.update_partitions)


def of_queues(names: Iterable[str]) -> Topology:
    """What these queues need to be consumed, and no other's.

    Raises:
        TopologyError: as :func:`pipeline`.
    """
    return _around([_target(name) if family_of(name) else _work(name) for name in sorted(names)])


def family_of(queue: str) -> str | None:
    """``send`` or ``updates`` if it is a queue of one; None of another actor's queue."""
    family, _, rest = queue.partition(".")
    return family if is_answers_queue(queue) or _FAMILIES.get(family) == rest.count(".") else None


def _target(name: str) -> Queue:
    role = Role.SEND if family_of(name) == "send" else Role.UPDATES
    return Queue(name, role, dead_letters=dead_queue_of(name))


def _work(name: str) -> Queue:
    return Queue(_plain(name), Role.WORK, dead_letters=dead_queue(name))


def _around(targets: list[Queue], leaders: Iterable[str] = ()) -> Topology:
    """Queues that are consumed, and what they all have around them: exchanges, dead letters, the delay ladder."""
    graves = {queue.dead_letters for queue in targets if queue.dead_letters} | {MALFORMED_QUEUE, UNROUTABLE_QUEUE}
    levels = range(ladder.LEVELS)
    return Topology(
        exchanges=(
            Exchange(DEAD_EXCHANGE, "direct"),
            Exchange(UNROUTABLE_EXCHANGE, "fanout"),
            Exchange(ladder.DELIVER_EXCHANGE, "topic", alternate=UNROUTABLE_EXCHANGE),
            *(Exchange(ladder.level_name(level), "topic") for level in levels),
        ),
        queues=(
            *(Queue(name, Role.DEAD) for name in sorted(graves)),
            *targets,
            *(Queue(name, Role.LEADER) for name in leaders),
            *(Queue(ladder.level_name(level), Role.LEVEL, level=level) for level in levels),
        ),
        bindings=(
            *(Binding(DEAD_EXCHANGE, name, queue=name) for name in sorted(graves)),
            Binding(UNROUTABLE_EXCHANGE, "", queue=UNROUTABLE_QUEUE),
            *(Binding(ladder.DELIVER_EXCHANGE, ladder.delivery_pattern(q.name), queue=q.name) for q in targets),
            *(binding for level in levels for binding in _rungs(level)),
        ),
    )


def _rungs(level: int) -> tuple[Binding, Binding]:
    name = ladder.level_name(level)
    return (
        Binding(name, ladder.bit_pattern(level, 1), queue=name),
        Binding(name, ladder.bit_pattern(level, 0), to_exchange=ladder.next_exchange(level)),
    )


def _plain(name: str) -> str:
    if any(mark in name for mark in "*#") or not 0 < len(name.encode()) <= 190:
        raise TopologyError(
            f"The queue name {name[:40]!r} cannot be routed to: use 1 to 190 bytes without '*' and '#'."
        )
    return name


def arguments(queue: Queue, server: tuple[int, ...]) -> Arguments:
    """The ``x-`` arguments of a queue on a server of this version. The only place that knows them."""
    quorum: Arguments = {"x-queue-type": "quorum"}
    match queue.role:
        case Role.SEND | Role.UPDATES:
            return quorum | _safe_dead_letters(queue) | {"x-single-active-consumer": True}
        case Role.WORK:
            return quorum | _safe_dead_letters(queue)
        case Role.LEADER:
            return quorum | {"x-single-active-consumer": True, "x-max-length": 1, "x-delivery-limit": LOOKS}
        case Role.LEVEL:
            assert queue.level is not None
            return quorum | {
                "x-message-ttl": round(ladder.level_wait(queue.level).total_seconds() * 1000),
                "x-dead-letter-exchange": ladder.next_exchange(queue.level),
                "x-dead-letter-strategy": "at-least-once",
                "x-overflow": "reject-publish",
            }
        case Role.DEAD:
            # Looking at a dead letter and putting it back counts as a delivery. It must survive any number of
            # looks.
            return quorum | {"x-delivery-limit": LOOKS}


def _safe_dead_letters(queue: Queue) -> Arguments:
    assert queue.dead_letters is not None
    return {
        "x-delivery-limit": DELIVERY_LIMIT,
        "x-dead-letter-exchange": DEAD_EXCHANGE,
        "x-dead-letter-routing-key": queue.dead_letters,
        "x-dead-letter-strategy": "at-least-once",  # which needs reject-publish
        "x-overflow": "reject-publish",
    }


def exchange_arguments(exchange: Exchange) -> Arguments:
    """The ``x-`` arguments of an exchange."""
    return {"alternate-exchange": exchange.alternate} if exchange.alternate else {}


def declare(connections: Connections, topology: Topology, *, must: bool = False) -> None:
    """Make what is missing. Idempotent; touches nothing that exists.

    With an account that may make nothing, what is missing stays so: a job for it is refused, and a consumer waits for
    it. With ``must`` that is an error.

    Raises:
        TopologyError: something exists with other arguments.
        DeclareRefusedError: ``must``, and the account may not.
        RabbitMQUnreachableError: there is no server to ask.
    """
    connections.run(partial(_declare if must else _declare_if_allowed, topology), _bound_seconds(topology))


async def adeclare(connections: Connections, topology: Topology) -> None:
    """:func:`declare` on an event loop."""
    await connections.arun(partial(_declare_if_allowed, topology), _bound_seconds(topology))


def verify(connections: Connections, topology: Topology) -> list[str]:
    """What is missing or declared otherwise, one sentence each; empty when all is well. Creates nothing."""
    return connections.run(partial(_verify, topology), _bound_seconds(topology))


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


def _bound_seconds(topology: Topology) -> float:
    return max(DECLARE_SECONDS, QUEUE_SECONDS * len(topology.queues))


async def _purge(queues: list[str], session: Session) -> None:
    channel = await session.channel()
    for name in queues:
        try:
            await channel.call("queue_purge", queue=name)
        except ChannelRefusedError as refusal:
            if refusal.code != 404:
                raise
            channel = await session.channel()


async def _delete(queues: list[str], session: Session) -> None:
    channel = await session.channel()
    for name in queues:
        await channel.call("queue_delete", queue=name)


async def _declare(topology: Topology, session: Session) -> None:
    """Targets of dead letters and delays first, on one channel; then the queues that are consumed, on several."""
    consumed = [queue for queue in topology.queues if queue.role in _CONSUMED]
    names = {queue.name for queue in consumed}
    channel = await session.channel()
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


async def _make(channel: Channel, thing: Exchange | Queue, session: Session) -> None:
    try:
        await _declare_one(channel, thing, session.server_version)
    except ChannelRefusedError as refusal:
        if refusal.code == _FORBIDDEN:
            raise DeclareRefusedError(_MAY_NOT.format(refusal.text)) from None
        raise TopologyError(_difference(thing, session.server_version, refusal)) from None


class Progress:
    """Logs how far declaring has come, once a second."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0
        self._told_at = time.monotonic()

    def count(self) -> None:
        self._done += 1
        if time.monotonic() - self._told_at >= 1:
            self._told_at = time.monotonic()
            logger.info("declaring queues: %d of %d", self._done, self._total)


async def _declare_if_allowed(topology: Topology, session: Session) -> None:
    try:
        await _declare(topology, session)
    except DeclareRefusedError as refused:
        logger.info("going on with the queues that are there: %s", refused)


async def _verify(topology: Topology, session: Session) -> list[str]:
    faults: list[str] = []
    channel = await session.channel()
    for thing in topology.things:
        try:
            await _declare_one(channel, thing, session.server_version, passive=True)
            await _declare_one(channel, thing, session.server_version)  # it exists: this compares, and creates nothing
        except ChannelRefusedError as refusal:
            faults.append(_fault(thing, session.server_version, refusal))
            channel = await session.channel()
    return faults


async def _depth(queues: list[str], session: Session) -> dict[str, int | None]:
    counts: dict[str, int | None] = {}
    channel = await session.channel()
    for name in queues:
        try:
            ok = await channel.call("queue_declare", queue=name, passive=True)
            counts[name] = ok.method.message_count
        except ChannelRefusedError as refusal:
            if refusal.code != 404:
                raise
            counts[name] = None
            channel = await session.channel()
    return counts


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
    if refusal.code == 404:
        return f"{_kind(thing)} {thing.name} is missing. `floodgate topology apply` makes it."
    return _difference(thing, server, refusal)


def _difference(thing: Exchange | Queue, server: tuple[int, ...], refusal: ChannelRefusedError) -> str:
    ours = arguments(thing, server) if isinstance(thing, Queue) else exchange_arguments(thing)
    return (
        f"{_kind(thing)} {thing.name} exists and is declared otherwise. RabbitMQ says: {refusal.text}. "
        f"We declare: {ours}. It may hold messages, so it is left alone: drain it and delete it by hand, "
        "or use another vhost."
    )


def _kind(thing: Exchange | Queue) -> str:
    return "Queue" if isinstance(thing, Queue) else "Exchange"
