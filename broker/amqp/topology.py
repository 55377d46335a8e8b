"""The topology: Floodgate's queues, exchanges and bindings, as values.

    send.<bot>.<priority>.<NN>    jobs, one partition each          ─▶ dead.<bot>      past the delivery limit
    send.<bot>.answers            answers to queries, in no order   ─▶ dead.<bot>
    updates.<bot>.<NN>            updates, one partition each       ─▶ dead.<bot>
    leader.<bot>                  the token that makes its holder the active receiver
    <name>                        any other Dramatiq actor's queue  ─▶ dead.<name>
    floodgate.dead                exchange that routes dead letters by the name of their queue
    dead.<bot>, dead.malformed    dead letters, kept for an operator (:mod:`floodgate.broker.worker.retention`)
    floodgate.delay.27 … .00      the delay ladder (:mod:`floodgate.broker.amqp.delay_ladder`), then
                                  floodgate.delay.deliver
    dead.unroutable               messages that left the ladder for a queue that does not exist
    floodgate.partitions.<family>.<bot>[.<count>]
                                  exchanges that record the number of partitions (:class:`PartitionCount`)

All queues are quorum queues. Arguments define the nature of a queue; tunable numbers are better set by a policy. One
function, :func:`arguments`, returns them. A queue with other arguments is reported, never deleted: it may hold
messages.

A missing target must not block the ladder: at-least-once dead-lettering keeps a message that it cannot route for ever,
and all messages behind it. So the last exchange has an alternate exchange, which leads to ``dead.unroutable``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final

from floodgate.broker.amqp import delay_ladder
from floodgate.broker.errors import TopologyError
from floodgate.broker.messages.job import Priority
from floodgate.broker.messages.queue_names import (
    DEAD_EXCHANGE,
    MALFORMED_QUEUE,
    UNROUTABLE_QUEUE,
    dead_queue,
    dead_queue_of,
    family_of,
    leader_queue,
    send_queue,
    send_queues,
    updates_queue,
)
from floodgate.broker.settings.model import Settings

UNROUTABLE_EXCHANGE: Final = "floodgate.unroutable"
# How often a message may return unacknowledged (its worker died) before it counts as a poison message.
DELIVERY_LIMIT: Final = 20
# Reading a dead letter and returning it counts as a delivery, and it must survive any number of reads. Without a limit
# (-1) it would go to the end of its queue each time; with one, it keeps its place. (Tested on 4.0.5.)
LOOKS: Final = 1_000_000_000


Arguments = dict[str, Any]


class Role(Enum):
    """The purpose of a queue, which determines its arguments."""

    SEND = auto()  # one partition of jobs, or a bot's answers: one consumer at a time
    UPDATES = auto()  # one partition of updates: likewise
    LEADER = auto()  # one token that one receiver holds; at most one message
    WORK = auto()  # any other actor's messages: any number of consumers
    LEVEL = auto()  # one level of the delay ladder
    DEAD = auto()  # dead letters, for an operator


@dataclass(frozen=True, slots=True)
class Exchange:
    """A durable exchange, with its alternate exchange if it has one."""

    name: str
    kind: str
    alternate: str | None = None


@dataclass(frozen=True, slots=True)
class Queue:
    """A quorum queue."""

    name: str
    role: Role
    dead_letters: str | None = None
    """The queue for messages that exceeded the delivery limit."""
    level: int | None = None
    """The number of a LEVEL."""


@dataclass(frozen=True, slots=True)
class Binding:
    """A binding of a queue or of another exchange to an exchange."""

    exchange: str
    key: str
    queue: str | None = None
    to_exchange: str | None = None


@dataclass(frozen=True, slots=True)
class PartitionCount:
    """The number of a bot's partitions of one family, recorded on the server because all processes must agree on it.

    The record is two exchanges that route nothing. The first has a fixed name, and the second, which is its alternate
    exchange, the number in its name. RabbitMQ refuses to declare the first with another number, so of two processes
    that differ only one can make a record. An account that may not declare exchanges can still ask whether they exist.
    """

    family: str
    bot: str
    count: int

    @property
    def setting(self) -> str:
        """The variable that sets the number."""
        return "FLOODGATE_PARTITIONS" if self.family == "send" else "FLOODGATE_UPDATE_PARTITIONS"

    @property
    def exchanges(self) -> tuple[Exchange, Exchange]:
        """The record, in the order of declaring."""
        name = f"floodgate.partitions.{self.family}.{self.bot}"
        numbered = f"{name}.{self.count}"
        return Exchange(name, "fanout", alternate=numbered), Exchange(numbered, "fanout")

    @property
    def queues(self) -> list[str]:
        """The names of the partitions; with those of jobs, the queue of answers."""
        if self.family == "send":
            return send_queues(self.bot, self.count)
        return self.partitions(range(self.count))

    def partitions(self, numbers: Iterable[int]) -> list[str]:
        """The names of the partitions with these numbers."""
        if self.family == "send":
            return [send_queue(self.bot, priority, n) for n in numbers for priority in Priority]
        return [updates_queue(self.bot, n) for n in numbers]


@dataclass(frozen=True, slots=True)
class Topology:
    """The exchanges, queues and bindings that must exist, in the order of declaring: targets come first."""

    exchanges: tuple[Exchange, ...]
    queues: tuple[Queue, ...]
    bindings: tuple[Binding, ...]
    counts: tuple[PartitionCount, ...] = ()
    """The numbers of partitions to compare with the recorded ones before anything is declared."""

    @property
    def things(self) -> tuple[Exchange | Queue, ...]:
        """Every exchange and queue."""
        return (*self.exchanges, *self.queues)


def pipeline(
    bots: Iterable[str], partitions: int, *, update_partitions: int = 0, work_queues: Iterable[str] = ()
) -> Topology:
    """Return the topology for the bots' jobs and updates, and for the other actors' messages.

    Args:
        partitions: number of queues per bot and priority for jobs; 0 for a process that handles no jobs.
        update_partitions: number of queues per bot for updates; 0 for a process that handles no updates.

    Raises:
        TopologyError: a queue's name cannot be used in a routing pattern.
    """
    bots = list(bots)
    names = [name for bot in bots for name in send_queues(bot, partitions)]
    names += [updates_queue(bot, n) for bot in bots for n in range(update_partitions)]
    leaders = [leader_queue(bot) for bot in bots if update_partitions]
    counts = _counts(
        [("send", bot) for bot in bots] + [("updates", bot) for bot in bots], partitions, update_partitions
    )
    return _around([*map(_target, names), *map(_work, sorted(work_queues))], leaders, counts)


def pipeline_of(settings: Settings, bots: Iterable[str]) -> Topology:
    """Return :func:`pipeline` with the numbers of partitions in the settings."""
    return pipeline(sorted(bots), settings.partitions, update_partitions=settings.update_partitions)


def of_queues(names: Iterable[str], settings: Settings) -> Topology:
    """Return the topology needed to consume these queues only.

    Raises:
        TopologyError: as :func:`pipeline`.
    """
    names = sorted(names)
    families = sorted({(family, name.split(".")[1]) for name in names if (family := family_of(name))})
    counts = _counts(families, settings.partitions, settings.update_partitions)
    return _around([_target(name) if family_of(name) else _work(name) for name in names], counts=counts)


def _counts(families: Iterable[tuple[str, str]], partitions: int, update_partitions: int) -> tuple[PartitionCount, ...]:
    counts = {"send": partitions, "updates": update_partitions}
    return tuple(PartitionCount(family, bot, counts[family]) for family, bot in families if counts[family])


def _target(name: str) -> Queue:
    role = Role.SEND if family_of(name) == "send" else Role.UPDATES
    return Queue(name, role, dead_letters=dead_queue_of(name))


def _work(name: str) -> Queue:
    return Queue(_plain(name), Role.WORK, dead_letters=dead_queue(name))


def _around(targets: list[Queue], leaders: Iterable[str] = (), counts: tuple[PartitionCount, ...] = ()) -> Topology:
    """Return consumed queues with what they share: exchanges, dead-letter queues, the delay ladder."""
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
        counts=counts,
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
            f"The queue name {name[:40]!r} cannot be used in a routing pattern: use 1 to 190 bytes without '*' and '#'."
        )
    return name


def arguments(queue: Queue, server: tuple[int, ...]) -> Arguments:
    """Return the ``x-`` arguments of a queue on a server of this version. They are defined only here."""
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
    """Return the ``x-`` arguments of an exchange."""
    return {"alternate-exchange": exchange.alternate} if exchange.alternate else {}
