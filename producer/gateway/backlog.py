"""Counts the jobs that wait, and refuses more when there are too many.

A bot sends about 30 messages a second. Producers that outrun it for hours would fill RabbitMQ's disk with messages that
are obsolete by the time they are sent, and would not notice. So above a limit the gateway answers as Telegram would:
with 429 and the time after which there is room again.

Waiting jobs are in two places: ready in the bot's queues, and parked on the delay ladder, where the ledger counts them.
Both are counted at most once a second, and the jobs that this gateway has accepted since are added. So the limit may be
exceeded by the jobs that others accept within that second.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from floodgate.broker.amqp import queue_admin
from floodgate.broker.amqp.connections import Connections
from floodgate.broker.errors import FloodgateError
from floodgate.broker.messages import queue_names
from floodgate.broker.messages.job import Priority
from floodgate.broker.settings.model import Settings
from floodgate.broker.state.calls import BatchedAdmission
from floodgate.producer.gateway.answers import RefusalError

logger = logging.getLogger("floodgate.gateway")

FRESH_SECONDS: Final = 1.0
LONGEST_RETRY_SECONDS: Final = 600

LineKey = tuple[str, Priority]


@dataclass(slots=True)
class Count:
    """Jobs of one bot and priority: counted at ``at`` (monotonic seconds), accepted here since, and being accepted."""

    counted: int = 0
    since: int = 0
    coming: int = 0
    at: float = -math.inf
    under_way: bool = False


class Backlog:
    """The number of waiting jobs, by bot and priority. Belongs to one event loop."""

    def __init__(self, settings: Settings, connections: Connections, store: BatchedAdmission) -> None:
        self._settings = settings
        self._connections = connections
        self._store = store
        self._counts: dict[LineKey, Count] = {}
        self._tasks: set[asyncio.Task[None]] = set()  # references that keep running tasks from being collected

    @contextmanager
    def taking(self, bot: str, priority: Priority) -> Iterator[None]:
        """Count one more job, which the ``with`` block enqueues; if it raises, the job is not counted.

        Raises:
            RefusalError: too many jobs wait; says when to try again.
        """
        count = self._counts.setdefault((bot, priority), Count())
        if not count.under_way and time.monotonic() - count.at > FRESH_SECONDS:
            count.under_way = True
            task = asyncio.get_running_loop().create_task(self._renew((bot, priority), count))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        over = count.counted + count.since + count.coming - self._settings.gateway.max_queued
        if over >= 0:
            raise _too_many(over + 1, self._settings.limits.for_bot(bot).bot_per_second)
        count.coming += 1
        try:
            yield
            count.since += 1
        finally:
            count.coming -= 1

    async def _renew(self, line: LineKey, count: Count) -> None:
        accepted_before = count.since
        try:
            counted = await self._ask(*line)
        except FloodgateError as error:
            logger.warning("could not count the backlog of bot %s: %s", line[0], error)
        else:
            count.counted = counted
            count.since -= accepted_before
        finally:
            count.at, count.under_way = time.monotonic(), False

    async def _ask(self, bot: str, priority: Priority) -> int:
        queues = [queue_names.send_queue(bot, priority, n) for n in range(self._settings.partitions)]
        ready = sum(depth or 0 for depth in (await queue_admin.adepth(self._connections, queues)).values())
        return ready + (await self._store.waiting(bot))[priority]


def _too_many(over: int, per_second: float) -> RefusalError:
    seconds = min(LONGEST_RETRY_SECONDS, max(1, math.ceil(over / per_second)))
    return RefusalError(429, f"Too Many Requests: retry after {seconds}", retry_after=seconds)
