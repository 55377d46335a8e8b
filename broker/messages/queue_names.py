"""Names of queues for jobs, updates and dead letters.

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
# Families of queues named <family>.<bot>.…, and the number of dots after the family. An answers queue has fewer.
_FAMILIES: Final = {"send": 2, "updates": 1}
_ANSWERS_NAME: Final = re.compile(r"send\.[^.]+\.answers")


def send_queue(bot: str, priority: str, n: int) -> str:
    """Return the name of a partition of jobs. Its number has two digits, or three from 100 on."""
    return f"send.{bot}.{priority}.{n:02}"


def answers_queue(bot: str) -> str:
    """Return the name of the queue for a bot's answers to queries."""
    return f"send.{bot}.answers"


def is_answers_queue(name: str) -> bool:
    """Return whether this is the name of a queue for answers to queries."""
    return _ANSWERS_NAME.fullmatch(name) is not None


def home_of(job: Job, partitions: int) -> str:
    """Return the queue that a job belongs in: its chat's partition, or the queue of its bot's answers."""
    if job.answers_query:
        return answers_queue(job.bot)
    return send_queue(job.bot, job.priority, job.partition(partitions))


def send_queues(bot: str, partitions: int) -> list[str]:
    """Return all queues of a bot's jobs; none without partitions."""
    names = [send_queue(bot, priority, n) for priority in Priority for n in range(partitions)]
    return [*names, answers_queue(bot)] if partitions else []


def updates_queue(bot: str, n: int) -> str:
    """Return the name of a partition of updates."""
    return f"updates.{bot}.{n:02}"


def leader_queue(bot: str) -> str:
    """Return the name of the queue whose token marks the active receiver."""
    return f"leader.{bot}"


def dead_queue(owner: str) -> str:
    """Return the name of the dead-letter queue of a bot, or of another actor's queue."""
    return f"dead.{owner}"


def dead_queues(bots: Iterable[str]) -> list[str]:
    """Return every dead-letter queue: each bot's, and those for messages of no bot."""
    return [*map(dead_queue, sorted(bots)), UNROUTABLE_QUEUE, MALFORMED_QUEUE]


def dead_queue_of(queue: str) -> str:
    """Return the dead-letter queue of a queue: ``dead.news`` for ``send.news.bulk.03`` and ``updates.news.03``,
    ``dead.mail`` for ``mail``."""
    return dead_queue(owner_of(queue))


def owner_of(queue: str) -> str:
    """Return the bot of a queue of jobs or updates, and the name of any other queue."""
    return queue.split(".")[1] if family_of(queue) else queue


def family_of(queue: str) -> str | None:
    """Return a queue's family, ``send`` or ``updates``; None for another actor's queue."""
    family, _, rest = queue.partition(".")
    return family if is_answers_queue(queue) or _FAMILIES.get(family) == rest.count(".") else None
