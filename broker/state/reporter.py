"""Reports what a process does to the state store, once a second: that it lives, what it consumes, what it has counted.

It runs on a thread of its own, so a store that does not answer delays no admission and no event loop. While the store
is away, counts add up and go into the first report afterwards: there is never more to remember than there are series.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from importlib.metadata import version
from typing import Final

from floodgate.broker.errors import SettingsError, StateError
from floodgate.broker.process.metrics import (
    CALL,
    DEAD,
    RELEASED,
    SENDS,
    TOO_MANY_REQUESTS,
    UPDATE_LAG,
    UPDATES_RECEIVED,
    WAIT,
    Metric,
    Metrics,
)
from floodgate.broker.process.outages import OutageLog
from floodgate.broker.process.stopping import Stopping
from floodgate.broker.settings.model import Settings
from floodgate.broker.state.activity import Activity, Counts, ProcessReport, Series
from floodgate.broker.state.stores import missing_state_file, open_activity
from floodgate.broker.state.thread import StateThread

logger = logging.getLogger("floodgate.metrics")

EVERY_SECONDS: Final = 1.0
# For the last report. A store that is away must not delay the end of the process.
LAST_SECONDS: Final = 2.0
# The bots whose gauges a report samples. More take turns: their seconds have gaps, their minutes hardly any.
MOST_SAMPLED: Final = 50
_SILENT: Final = "this process cannot report what it does: %s"
# Which series a count belongs to, by the labels after the bot.
_COUNTERS: Final[Mapping[Metric, Mapping[str, Series]]] = {
    SENDS: {
        "sent": Series.SENT,
        "nothing-to-do": Series.SENT,
        "retry": Series.RETRIED,
        "uncertain": Series.RETRIED,
        "dead": Series.REFUSED,
    },
    TOO_MANY_REQUESTS: {"chat": Series.PAUSED_CHAT, "bot": Series.PAUSED_BOT},
}
_TOTALS: Final = {DEAD: Series.DEAD, RELEASED: Series.RELEASED, UPDATES_RECEIVED: Series.RECEIVED}
_CAUSES: Final = {
    "rate": Series.WAITS_RATE,
    "line": Series.WAITS_LINE,
    "pause": Series.WAITS_PAUSE,
    "in-flight": Series.WAITS_IN_FLIGHT,
    "lease": Series.WAITS_IN_FLIGHT,
    "outage": Series.WAITS_OUTAGE,
    "store": Series.WAITS_STORE,
}

BotCounts = Mapping[str, Counts]
"""Counts by bot, since the process began."""


class Reporter:
    """Reports until it is stopped. Belongs to the event loop. ``stop`` takes at most :data:`LAST_SECONDS`; it is safe
    to call twice, and unstarted. Reports nothing if ``FLOODGATE_REPORTS`` is off, and not before a worker has created
    the state file: a receiver on a machine of its own has none.

    Args:
        metrics: what the process counts.
        process_id: a worker's name in RabbitMQ; by default, one is made.
        partitions: returns the queues that the process consumes.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        *,
        process_id: str | None = None,
        partitions: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._id = process_id or f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._partitions = partitions
        self._began = time.monotonic()
        self._told: BotCounts = {}
        self._reports = 0
        self._thread = StateThread()
        self._stopping = Stopping()
        self._outage = OutageLog()
        self._reporting: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to report."""
        if not self._settings.reports:
            return
        try:
            activity = open_activity(self._settings)
        except SettingsError as error:  # a receiver needs no client of Redis
            logger.warning(_SILENT, error)
        else:
            self._reporting = asyncio.create_task(self._report_on(activity), name="floodgate-reports")

    async def stop(self) -> None:
        """Report for the last time: the process leaves the list."""
        self._stopping.set()
        reporting, self._reporting = self._reporting, None
        if reporting is None:
            return
        await asyncio.wait({reporting}, timeout=LAST_SECONDS)
        if not reporting.done():
            reporting.cancel()  # its thread ends with the process
        elif (fault := reporting.exception()) is not None:
            logger.error("the reports of this process ended early", exc_info=fault)

    async def _report_on(self, activity: Activity) -> None:
        while not self._stopping.is_set():
            await self._try_report(activity, last=False)
            await self._stopping.sleep(EVERY_SECONDS)
        await self._try_report(activity, last=True)
        await self._thread.call(activity.close)
        await self._thread.stop()

    async def _try_report(self, activity: Activity, *, last: bool) -> None:
        if missing_state_file(self._settings):
            return
        self._reports += 1
        process, totals = self._process(), totals_of(self._metrics, self._settings.tokens)
        added = _difference(totals, self._told)
        try:
            if last:
                await self._thread.call(activity.leave, process, added)
            else:
                await self._thread.call(activity.report, process, added, sampled_in(self._reports, process.partitions))
        except StateError as error:
            if self._outage.is_due(str(error)):
                logger.warning(_SILENT, error)
        else:
            self._told = totals
            self._outage.end()

    def _process(self) -> ProcessReport:
        return ProcessReport(
            id=self._id,
            role=str(self._metrics.role),
            host=socket.gethostname(),
            pid=os.getpid(),
            version=version("telegram-floodgate"),
            uptime=timedelta(seconds=time.monotonic() - self._began),
            partitions=tuple(self._partitions()),
        )


def totals_of(metrics: Metrics, bots: Iterable[str]) -> BotCounts:
    """Return the totals of the history's counters, for these bots."""
    totals: dict[str, dict[Series, float]] = {bot: defaultdict(float) for bot in bots}
    for bot, series, value in _counted(metrics):
        if bot in totals:
            totals[bot][series] += value
    return totals


def _counted(metrics: Metrics) -> Iterator[tuple[str, Series, float]]:
    for metric, by_label in _COUNTERS.items():
        for (bot, label), value in metrics.values(metric).items():
            if label in by_label:
                yield bot, by_label[label], value
    for metric, series in _TOTALS.items():
        yield from ((labels[0], series, value) for labels, value in metrics.values(metric).items())
    for (bot, cause), waits in metrics.distributions(WAIT).items():
        if cause in _CAUSES:
            yield bot, _CAUSES[cause], waits.count
    for (bot,), calls in metrics.distributions(CALL).items():
        yield bot, Series.CALLS, calls.count
        yield bot, Series.CALL_TIME, calls.sum
    for (bot,), lags in metrics.distributions(UPDATE_LAG).items():
        yield bot, Series.HANDLED, lags.count
        yield bot, Series.UPDATE_LAG, lags.sum


def _difference(totals: BotCounts, told: BotCounts) -> dict[str, Counts]:
    """Return what was counted since the last report, without what was not."""
    found = {bot: _grown(counts, told.get(bot, {})) for bot, counts in totals.items()}
    return {bot: counts for bot, counts in found.items() if counts}


def _grown(counts: Counts, told: Counts) -> Counts:
    added = {series: value - told.get(series, 0.0) for series, value in counts.items()}
    return {series: value for series, value in added.items() if value}


def sampled_in(report: int, partitions: Iterable[str]) -> list[str]:
    """Return the bots that a report samples: :data:`MOST_SAMPLED` of those that send from these queues, in turn."""
    bots = _senders(partitions)
    first = report * MOST_SAMPLED % max(1, len(bots))
    return [*bots[first:], *bots[:first]][:MOST_SAMPLED]


def _senders(partitions: Iterable[str]) -> list[str]:
    names = (queue.split(".") for queue in partitions)
    return sorted({bot for family, bot, *_ in names if family == "send"})
