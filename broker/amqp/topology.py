"""What exists on the server, as values; and the functions that make, check and count it.

    send.<bot>.<priority>.<NN>    jobs, one partition each          ─▶ dead.<bot>      past the delivery limit
    send.<bot>.answers            answers to queries, in no order   ─▶ dead.<bot>
    updates.<bot>.<NN>            updates, one partition each       ─▶ dead.<bot>
    leader.<bot>                  the token that makes a receiver the active one
    <name>                        any other Dramatiq actor's queue  ─▶ dead.<name>
    floodgate.dead                exchange: a dead letter to its queue by name
    dead.<bot>, dead.malformed    what waits for an operator, for a time (:mod:`floodgate.broker.worker.retention`)
    floodgate.delay.27 … .00      the ladder (:mod:`floodgate.broker.amqp.delay_ladder`), then floodgate.delay.deliver
    dead.unroutable               what left the ladder for a queue that is not there

All queues are quorum queues. Arguments say what a queue *is*; numbers one may want to tune are better set by
a policy. They come from one function, :func:`arguments`. What exists with other arguments is reported, never
deleted: it may hold messages.

A target that is missing must not block the ladder: dead-lettering at least once holds a message for ever that
it cannot route, and all behind it. So the last exchange has an alternate, which leads to ``dead.unroutable``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final

from floodgate.broker.amqp import delay_ladder
from floodgate.broker.errors import TopologyError
from floodgate.broker.messages.queue_names import (
    DEAD_EXCHANGE,
    MALFORMED_QUEUE,
    UNROUTABLE_QUEUE,
    dead_queue,
    dead_queue_of,
    family_of,
    leader_queue,
    send_queues,
    updates_queue,
)
from floodgate.broker.settings.model import Settings

UNROUTABLE_EXCHANGE: Final = "floodgate.unroutable"
# How often a message may come back without an answer (its worker died on it) before it is taken for poison.
DELIVERY_LIMIT: Final = 20
# Looking at a dead letter and putting it back counts as a delivery, and it must survive any number of looks.
# Without a limit (-1) it would go to the end of its queue each time: with one, it keeps its place. (Tried on
# 4.0.5.)
LOOKS: Final = 1_000_000_000


Arguments = dict[str, Any]


class Role(Enum):
    """What a queue is for, and so what it is."""

    SEND = auto()  # one partition of jobs, or a bot's answers: one consumer at a time
    UPDATES = auto()  # one partition of updates: likewise
    LEADER = auto()  # one token that one receiver holds: never empty for long, never more than one waiting
    WORK = auto()  # any other actor's messages: as many consumers as there are
    LEVEL = auto()  # one level of the delay ladder
    DEAD = auto()  # what waits for an operator


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


def _target(name: str) -> Queue:
    role = Role.SEND if family_of(name) == "send" else Role.UPDATES
    return Queue(name, role, dead_letters=dead_queue_of(name))


def _work(name: str) -> Queue:
    return Queue(_plain(name), Role.WORK, dead_letters=dead_queue(name))


def _around(targets: list[Queue], leaders: Iterable[str] = ()) -> Topology:
    """Queues that are consumed, and what they all have around them: exchanges, dead letters, the delay ladder."""
    graves = {queue.dead_letters for queue in targets if queue.dead_letters} | {MALFORMED_QUEUE, UNROUTABLE_QUEUE}
    levels = range(delay_ladder.LEVELS)
    return Topology(
        exchanges=(
            Exchange(DEAD_EXCHANGE, "direct"),
            Exchange(UNROUTABLE_EXCHANGE, "fanout"),
            Exchange(delay_ladder.DELIVER_EXCHANGE, "topic", alternate=UNROUTABLE_EXCHANGE),
            *(Exchange(delay_ladder.level_name(level), "topic") for level in levels),
        ),
        queues=(
            *(Queue(name, Role.DEAD) for name in sorted(graves)),
            *targets,
            *(Queue(name, Role.LEADER) for name in leaders),
            *(Queue(delay_ladder.level_name(level), Role.LEVEL, level=level) for level in levels),
        ),
        bindings=(
            *(Binding(DEAD_EXCHANGE, name, queue=name) for name in sorted(graves)),
            Binding(UNROUTABLE_EXCHANGE, "", queue=UNROUTABLE_QUEUE),
            *(
                Binding(delay_ladder.DELIVER_EXCHANGE, delay_ladder.delivery_pattern(q.name), queue=q.name)
                for q in targets
            ),
            *(binding for level in levels for binding in _rungs(level)),
        ),
    )


def _rungs(level: int) -> tuple[Binding, Binding]:
    name = delay_ladder.level_name(level)
    return (
        Binding(name, delay_ladder.bit_pattern(level, 1), queue=name),
        Binding(name, delay_ladder.bit_pattern(level, 0), to_exchange=delay_ladder.next_exchange(level)),
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
                "x-message-ttl": round(delay_ladder.level_wait(queue.level).total_seconds() * 1000),
                "x-dead-letter-exchange": delay_ladder.next_exchange(queue.level),
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
