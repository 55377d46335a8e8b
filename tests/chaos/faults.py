"""Faults and their times: a schedule drawn from a seed. Pure; the same seed gives the same schedule."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    WORKER_KILLED = "worker killed"
    WORKERS_ROLLED = "workers restarted one by one"
    PRODUCER_KILLED = "producer killed"
    RABBITMQ_KILLED = "RabbitMQ killed"
    REDIS_KILLED = "Redis killed"
    FAKE_KILLED = "Bot API killed"
    CUT = "connections cut"
    RESET = "connections reset"
    STALLED = "connections stalled"
    REFUSED = "connections refused"
    DISK_FULL = "disk full"
    CLOCK_STEPPED = "clock stepped"
    SERVER_ERRORS = "5xx, acted or not"
    CUTS_BEFORE = "calls cut before they acted"
    CUTS_AFTER = "calls cut after they acted"
    SILENCE = "calls that act and are never answered"
    CHAT_429 = "429 for chats"
    BOT_429 = "429 for the bot"


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. ``target`` is the number of a worker, producer or link; ``seconds`` is its duration."""

    at: float
    kind: Kind
    target: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Cast:
    """The possible targets. Links: one per worker to RabbitMQ, one for all producers, one to the Bot API."""

    workers: int
    producers: int
    redis: bool
    disk: bool

    @property
    def links(self) -> int:
        return self.workers + 2


# The relative frequency of each kind, and its duration in seconds.
_WEIGHTS = {
    Kind.WORKER_KILLED: (5, (0.0, 1.0)),
    Kind.WORKERS_ROLLED: (1, (0.0, 0.0)),
    Kind.PRODUCER_KILLED: (2, (0.0, 0.5)),
    Kind.RABBITMQ_KILLED: (1, (0.0, 2.0)),
    Kind.REDIS_KILLED: (2, (0.0, 2.0)),
    Kind.FAKE_KILLED: (2, (0.2, 2.0)),
    Kind.CUT: (3, (0.0, 0.0)),
    Kind.RESET: (3, (0.0, 0.0)),
    Kind.STALLED: (2, (0.5, 6.0)),
    Kind.REFUSED: (2, (0.5, 3.0)),
    Kind.DISK_FULL: (1, (0.5, 3.0)),
    Kind.CLOCK_STEPPED: (2, (0.0, 0.0)),
    Kind.SERVER_ERRORS: (2, (0.5, 4.0)),
    Kind.CUTS_BEFORE: (2, (0.5, 4.0)),
    Kind.CUTS_AFTER: (2, (0.5, 4.0)),
    Kind.SILENCE: (1, (0.5, 2.0)),
    Kind.CHAT_429: (2, (1.0, 4.0)),
    Kind.BOT_429: (1, (1.0, 3.0)),
}
# A killed RabbitMQ needs this long to return; then there is a pause, so that some jobs are sent between two faults.
_REST = {Kind.RABBITMQ_KILLED: 4.0, Kind.WORKERS_ROLLED: 3.0}
FIRST_AT = 3.0


def schedule(seed: int, seconds: float, every: float, cast: Cast) -> Sequence[Fault]:
    """Schedules faults about ``every`` so many seconds. Each possible kind occurs once before any kind is repeated,
    as far as the time allows."""
    draw = random.Random(seed)
    return tuple(_faults(draw, seconds, every, cast))


def _faults(draw: random.Random, seconds: float, every: float, cast: Cast) -> Iterator[Fault]:
    kinds = [kind for kind in Kind if _allowed(kind, cast)]
    fresh = draw.sample(kinds, len(kinds))
    at = FIRST_AT
    while at < seconds:
        kind = fresh.pop() if fresh else draw.choices(kinds, [_WEIGHTS[kind][0] for kind in kinds])[0]
        yield Fault(round(at, 2), kind, _target(draw, kind, cast), round(draw.uniform(*_WEIGHTS[kind][1]), 2))
        at += draw.uniform(0.3, 1.7) * every + _REST.get(kind, 0.0)


def _allowed(kind: Kind, cast: Cast) -> bool:
    match kind:
        case Kind.REDIS_KILLED:
            return cast.redis
        case Kind.DISK_FULL:
            return cast.disk
        case _:
            return True


def _target(draw: random.Random, kind: Kind, cast: Cast) -> int:
    match kind:
        case Kind.WORKER_KILLED:
            return draw.randrange(cast.workers)
        case Kind.PRODUCER_KILLED:
            return draw.randrange(cast.producers)
        case Kind.CUT | Kind.RESET | Kind.STALLED | Kind.REFUSED:
            return draw.randrange(cast.links)
        case Kind.CLOCK_STEPPED:
            return draw.choice((-7200, -90, -5, 0, 5, 90, 3600))
        case _:
            return 0
