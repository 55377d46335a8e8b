"""Names of queues: which queue a job, an update or a dead letter belongs in.

The names are the contract between producers, workers and operators: see :mod:`floodgate.broker.amqp.topology`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from floodgate.broker.messages.job import Job, Priority

DEAD_EXCHANGE: Final = "floodgate.dead"
MALFORMED_QUEUE: Final = "dead.malformed"
UNROUTABLE_QUEUE: Final = "dead.unroutable"
# Queues named <family>.<bot>.…, and how many more dots their names have. So has an answers queue, which has fewer.
_FAMILIES: Final = {"send": 2, "updates": 1}
_ANSWERS_NAME: Final = re.compile(r"send\.[^.]+\.answers")


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


def family_of(queue: str) -> str | None:
    """``send`` or ``updates`` if it is a queue of one; None of another actor's queue."""
    family, _, rest = queue.partition(".")
    return family if is_answers_queue(queue) or _FAMILIES.get(family) == rest.count(".") else None
