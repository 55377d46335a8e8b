"""The process that sends campaigns: ``floodgate campaigns run``. Any number may run; each campaign has one leader.

Start order: settings → database → connections to RabbitMQ and the state store, at first use. Every
:data:`STEP_SECONDS` the process reads the campaigns' states with one query, takes the leases that are free, and lets
each leader take a step; once a second it renews its leases. So a start, a pause or a resume acts within a step, and a
process without campaigns writes nothing. A database, a state store or a RabbitMQ that is away is logged and waited for;
a campaign that cannot go on does not hold up the others.

Stop order, on SIGTERM or SIGINT: the step under way ends → the leases are given up → the result feed, the client and
the stores close. Jobs that are released stay in RabbitMQ and are sent; the next leader takes note of their outcomes.
Bounded by :data:`STOP_SECONDS`; a second signal exits at once.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol

from floodgate.broker.admission.result_feed import ResultFeed
from floodgate.broker.amqp.connections import Connections
from floodgate.broker.errors import FloodgateError, StateError
from floodgate.broker.messages.job import Job
from floodgate.broker.process.event_loop import new_event_loop
from floodgate.broker.process.forced_exit import stop_on_signals
from floodgate.broker.process.measurement import Measurement
from floodgate.broker.process.metrics import LED, ProcessRole
from floodgate.broker.process.outages import Backoff, OutageLog
from floodgate.broker.process.tracing import start_tracing
from floodgate.broker.settings.model import Settings
from floodgate.broker.state.calls import BatchedAdmission
from floodgate.broker.state.reporter import Reporter
from floodgate.broker.state.stores import open_batched, open_result_feed
from floodgate.broker.state.thread import StateThread
from floodgate.producer.campaigns.sending.leader import Leader
from floodgate.producer.campaigns.sending.outcomes import PREFIX
from floodgate.producer.campaigns.sending.reports import ProgressReport, ReportStore
from floodgate.producer.campaigns.states import CampaignState
from floodgate.producer.campaigns.storage.database import Database
from floodgate.producer.campaigns.storage.records import Campaign
from floodgate.producer.campaigns.storage.store import CampaignStore

if TYPE_CHECKING:
    from floodgate.broker.process.spans import Tracing

logger = logging.getLogger("floodgate.campaigns")

STEP_SECONDS: Final = 0.2
RENEW_SECONDS: Final = 1.0
# A leader that is killed is replaced this much later.
LEASE_SECONDS: Final = 5.0
LISTEN_SECONDS: Final = 0.1
LOOK_UP_SECONDS: Final = 10.0
RETRY_SECONDS: Final = 0.5
LONGEST_RETRY_SECONDS: Final = 5.0
STOP_SECONDS: Final = 20.0


class JobClient(Protocol):
    """What a process needs of :class:`~floodgate.producer.async_client.AsyncClient`, which offers campaigns itself."""

    async def enqueue_many(self, jobs: Iterable[Job]) -> int:
        """Enqueue jobs, and return their number."""
        ...

    async def close(self) -> None:
        """Release the connection."""
        ...


class CampaignRunner:
    """Runs campaigns in this process. Opens nothing before :meth:`run`, and closes the client at its end."""

    def __init__(
        self,
        settings: Settings,
        client: JobClient,
        measurement: Measurement | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self._settings = settings
        self._measurement = measurement or Measurement(settings, ProcessRole.CAMPAIGNS)
        self._client = client
        self._publish = client.enqueue_many if tracing is None else tracing.publishing(client.enqueue_many)
        self._name = f"{socket.gethostname()[:40]}-{secrets.token_hex(6)}"
        database = Database(settings)
        self._store = CampaignStore(database)
        self._reports = ReportStore(database)
        self._leaders: dict[int, Leader] = {}
        self._progress: dict[int, ProgressReport] = {}
        self._stop = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._missed = asyncio.Event()  # outcomes may have been missed
        self._reports_outage = OutageLog()

    def stop(self) -> None:
        """Ask :meth:`run` to end. Safe from any thread, twice, and before ``run``."""
        if self._loop is None:
            self._stop.set()
            return
        with suppress(RuntimeError):  # it has ended
            self._loop.call_soon_threadsafe(self._stop.set)

    async def run(self, ready: Callable[[], None] = lambda: None) -> None:
        """Send campaigns until stopped. Calls ``ready`` once the database has been opened.

        Raises:
            FloodgateError: the database cannot be opened.
        """
        self._loop = asyncio.get_running_loop()
        await self._measurement.start()
        reporter = Reporter(self._settings, self._measurement.metrics)
        reporter.start()
        calls, state_thread, feed_thread = StateThread(), StateThread(), StateThread()
        ledger = open_batched(self._settings, state_thread)
        listening: asyncio.Task[None] | None = None
        try:
            await calls.call(self._store.all)
            ready()
            listening = asyncio.create_task(self._listen(feed_thread), name="result feed")
            await self._lead(calls, ledger)
        finally:
            if listening is not None:
                logger.info("stopping: giving up the leases")
                with suppress(StateError):
                    await calls.call(self._store.resign, self._name)
                listening.cancel()
                await asyncio.wait({listening})
            await feed_thread.stop()
            await self._client.close()
            await ledger.close()
            await state_thread.stop()
            await calls.call(self._store.close)
            await calls.stop()
            await reporter.stop()
            await self._measurement.stop()
        logger.info("stopped")

    async def _lead(self, calls: StateThread, ledger: BatchedAdmission) -> None:
        backoff, outage, renew_at = Backoff(RETRY_SECONDS, LONGEST_RETRY_SECONDS), OutageLog(), 0.0
        while not self._stop.is_set():
            step_at = time.monotonic() + STEP_SECONDS
            try:
                led, is_free = await calls.call(self._store.look, self._name)
                # The leader of a campaign whose lease was lost is replaced: another process may have led it since.
                self._leaders = {each.id: self._leaders[each.id] for each in led if each.id in self._leaders}
                if is_free or (led and time.monotonic() >= renew_at):
                    led = await calls.call(self._store.lead, self._name, LEASE_SECONDS)
                    renew_at = time.monotonic() + RENEW_SECONDS
                await self._step(led, calls, ledger)
                backoff.reset()
                outage.end()
            except FloodgateError as error:
                if outage.is_due(str(error)):
                    logger.warning("campaigns wait: %s", error)
                step_at = time.monotonic() + backoff.next_seconds()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), max(0.0, step_at - time.monotonic()))

    async def _step(self, led: Sequence[Campaign], calls: StateThread, ledger: BatchedAdmission) -> None:
        """Let the leader of each campaign take a step."""
        shares = _shares(led)
        self._leaders = {
            campaign.id: self._leaders.get(campaign.id)
            or Leader(
                campaign,
                self._name,
                self._settings,
                store=self._store,
                calls=calls,
                ledger=ledger,
                publish=self._publish,
                metrics=self._measurement.metrics,
            )
            for campaign in led
        }
        self._measurement.metrics.set(LED, len(led))
        self._progress = {
            campaign.id: self._progress.get(campaign.id)
            or ProgressReport(
                self._settings,
                store=self._store,
                reports=self._reports,
                calls=calls,
                ledger=ledger,
                publish=self._publish,
            )
            for campaign in led
        }
        missed = self._missed.is_set()
        self._missed.clear()
        for campaign in led:
            await self._leaders[campaign.id].try_step(campaign, shares[campaign.id], missed=missed)
            await self._report(campaign)

    async def _report(self, campaign: Campaign) -> None:
        """Report a campaign's progress. A report that must wait holds up no campaign."""
        try:
            await self._progress[campaign.id].step(campaign)
        except FloodgateError as error:
            if self._reports_outage.is_due(str(error)):
                logger.warning("the report of campaign %s waits: %s", campaign.name, error)
        else:
            self._reports_outage.end()

    async def _listen(self, thread: StateThread) -> None:
        """Pass the outcomes of jobs to the leaders."""
        backoff, outage = Backoff(RETRY_SECONDS, LONGEST_RETRY_SECONDS), OutageLog()
        while True:
            bots = sorted({*self._settings.tokens, self._settings.default_bot})
            feed = open_result_feed(self._settings, bots)
            try:
                await thread.call(feed.skip)
                self._missed.set()
                await self._follow(feed, thread)
            except StateError as error:
                if outage.is_due():
                    logger.warning("the result feed is unavailable: %s", error)
                await asyncio.sleep(backoff.next_seconds())
            finally:
                feed.close()

    async def _follow(self, feed: ResultFeed, thread: StateThread) -> None:
        looked_at = time.monotonic()
        while True:
            for ended in await thread.call(feed.wait, LISTEN_SECONDS):
                if ended.job_id.startswith(PREFIX):
                    for leader in self._leaders.values():
                        leader.hear(ended.job_id, ended.record)
            if time.monotonic() - looked_at > LOOK_UP_SECONDS:  # a connection may fall silent without breaking
                looked_at = time.monotonic()
                self._missed.set()


def _shares(led: Sequence[Campaign]) -> Mapping[int, float]:
    """Divide each bot's rate among its running campaigns by weight."""
    running = [campaign for campaign in led if campaign.state is CampaignState.RUNNING]
    total: dict[str, float] = defaultdict(float)
    for campaign in running:
        total[campaign.bot] += campaign.definition.weight
    return {campaign.id: campaign.definition.weight / (total[campaign.bot] or 1.0) for campaign in led}


def run_campaigns(
    settings: Settings,
    make_client: Callable[[Connections], JobClient],
    ready: Callable[[], None],
) -> None:
    """Send campaigns until SIGTERM or SIGINT. Call it from the process's main thread.

    Args:
        make_client: makes the client, given the connections to use.

    Raises:
        FloodgateError: the process could not start: a setting is wrong, or the database is unavailable.
    """
    tracing = start_tracing("campaigns")
    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(_run(settings, make_client, ready, tracing))
    finally:
        if tracing is not None:
            tracing.close()


async def _run(
    settings: Settings,
    make_client: Callable[[Connections], JobClient],
    ready: Callable[[], None],
    tracing: Tracing | None,
) -> None:
    measurement = Measurement(settings, ProcessRole.CAMPAIGNS)
    connections = Connections(
        settings,
        "campaigns",
        on_callers_loop=True,
        patience_seconds=settings.publish_patience_seconds,
        metrics=measurement.metrics,
    )
    campaigns = CampaignRunner(settings, make_client(connections), measurement, tracing)
    stop_on_signals(campaigns.stop, STOP_SECONDS)
    try:
        await campaigns.run(ready)
    finally:
        await connections.aclose()
