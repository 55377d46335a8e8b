"""Reports a process to the state store once a second: that it lives, its queues, and what it has counted since.

What is counted stands in the process's :class:`~floodgate.broker.process.metrics.Metrics`; the reporter sends the
differences. While the store is away nothing is lost: the next report holds what has been counted since the last one
that arrived. The store's users report an outage, so this one is silent.

Bounds: one short call a second; the gauges of at most :data:`MOST_SAMPLED` bots are sampled in each, in turn. With more
bots than that, their seconds have gaps, and their minutes have none up to 60 times as many.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from importlib.metadata import version
from itertools import cycle, islice
from typing import Final

from floodgate.broker.errors import StateError
from floodgate.broker.process.metrics import (
    DEAD,
    RELEASED,
    SENDS,
    TOO_MANY_REQUESTS,
    UPDATE_LAG,
    UPDATES_RECEIVED,
    WAIT,
    Metric,
    Metrics,
    ProcessRole,
)
from floodgate.broker.settings.model import Settings
from floodgate.broker.state.activity import Counts, ProcessReport, Series
from floodgate.broker.state.stores import open_activity
from floodgate.broker.state.thread import StateThread

REPORT_SECONDS: Final = 1.0
LEAVE_SECONDS: Final = 2.0
MOST_SAMPLED: Final = 50

# By metric, the series to which each of its words adds; None stands for all words.
_COUNTERS: Final[Mapping[Metric, Mapping[str | None, Series]]] = {
    SENDS: {
        "sent": Series.SENT,
        "nothing-to-do": Series.SENT,
        **dict.fromkeys(("retry", "uncertain", "migrated", "bot-refused"), Series.RETRIED),
        "dead": Series.REFUSED,
    },
    DEAD: {None: Series.DEAD},
    TOO_MANY_REQUESTS: {"chat": Series.PAUSED_CHAT, "bot": Series.PAUSED_BOT},
    RELEASED: {None: Series.RELEASED},
    UPDATES_RECEIVED: {None: Series.RECEIVED},
}
_WAITS: Final = {cause: Series(f"waits-{cause}") for cause in WAIT.labels["cause"]}

Totals = Mapping[str, Counts]
"""What has been counted since the process began, by bot."""


class Reporter:
    """Reports one process. Belongs to the event loop; ``stop`` takes at most twice :data:`LEAVE_SECONDS`, and is safe
    to call twice, and unstarted.

    Args:
        thread: makes the calls.
        process_id: unique among all processes. A worker's is its consumer's name in RabbitMQ.
    """

    def __init__(
        self, settings: Settings, metrics: Metrics, thread: StateThread, process_id: str | None = None
    ) -> None:
        assert metrics.role is not None
        self._metrics = metrics
        self._thread = thread
        self._host = socket.gethostname()
        self._id = process_id or f"{self._host[:40]}-{os.getpid()}-{secrets.token_hex(4)}"
        self._role = metrics.role
        self._bots = sorted(settings.tokens)
        self._to_sample = cycle(self._bots if self._role is ProcessRole.WORKER else ())
        self._activity = open_activity(settings)
        self._partitions: tuple[str, ...] = ()
        self._began = time.monotonic()
        self._reported: Totals = {}
        self._stopping = asyncio.Event()
        self._reporting: asyncio.Task[None] | None = None

    def start(self, partitions: Iterable[str] = ()) -> None:
        """Begin to report. ``partitions`` are the queues that the process consumes."""
        self._partitions = tuple(sorted(partitions))
        self._reporting = asyncio.create_task(self._report_until_stopped(), name="floodgate-report")

    async def stop(self) -> None:
        """Report for the last time. Do this before the thread stops."""
        reporting, self._reporting = self._reporting, None
        if reporting is None:
            return
        self._stopping.set()
        done, _ = await asyncio.wait({reporting}, timeout=LEAVE_SECONDS)
        if not done:
            reporting.cancel()
            return
        with suppress(StateError, TimeoutError):
            async with asyncio.timeout(LEAVE_SECONDS):
                left = differences(totals(self._metrics, self._bots), self._reported)
                await self._thread.call(self._activity.leave, self._process(), left)
                await self._thread.call(self._activity.close)

    async def _report_until_stopped(self) -> None:
        while not self._stopping.is_set():
            await self._report()
            with suppress(TimeoutError):
                async with asyncio.timeout(REPORT_SECONDS):
                    await self._stopping.wait()

    async def _report(self) -> None:
        counted = totals(self._metrics, self._bots)
        sampled = tuple(islice(self._to_sample, min(MOST_SAMPLED, len(self._bots))))
        with suppress(StateError):
            increments = differences(counted, self._reported)
            await self._thread.call(self._activity.report, self._process(), increments, sampled)
            self._reported = counted

    def _process(self) -> ProcessReport:
        uptime = timedelta(seconds=time.monotonic() - self._began)
        return ProcessReport(
            self._id, self._role, self._host, os.getpid(), version("telegram-floodgate"), uptime, self._partitions
        )


@asynccontextmanager
async def reporting(settings: Settings, metrics: Metrics) -> AsyncIterator[None]:
    """Report this process while the block runs, on a thread of its own. Takes at most three times
    :data:`LEAVE_SECONDS` to end."""
    thread = StateThread()
    reporter = Reporter(settings, metrics, thread)
    reporter.start()
    try:
        yield
    finally:
        await reporter.stop()
        with suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_SECONDS):
                await thread.stop()


def totals(metrics: Metrics, bots: Iterable[str]) -> Totals:
    """Return what has been counted of these bots, by the history's series."""
    found: dict[str, dict[Series, float]] = {bot: defaultdict(float) for bot in bots}
    for bot, series, value in _counted(metrics):
        if value and bot in found:
            found[bot][series] += value
    return found


def _counted(metrics: Metrics) -> Iterator[tuple[str, Series, float]]:
    for metric, series_of in _COUNTERS.items():
        for (bot, *words), value in metrics.values(metric).items():
            series = series_of.get(words[0] if words else None, series_of.get(None))
            if series is not None:
                yield bot, series, value
    for (bot, cause), waits in metrics.distributions(WAIT).items():
        if cause in _WAITS:
            yield bot, _WAITS[cause], waits.count
    for (bot,), lags in metrics.distributions(UPDATE_LAG).items():
        yield bot, Series.HANDLED, lags.count
        yield bot, Series.UPDATE_LAG, lags.sum


def differences(now: Totals, before: Totals) -> Totals:
    """Return what has been counted since ``before``, by bot; bots without any are left out."""
    found = {
        bot: {
            series: value - before.get(bot, {}).get(series, 0.0)
            for series, value in counts.items()
            if value != before.get(bot, {}).get(series, 0.0)
        }
        for bot, counts in now.items()
    }
    return {bot: counts for bot, counts in found.items() if counts}
