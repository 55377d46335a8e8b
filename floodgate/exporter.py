"""The exporter: what ``floodgate metrics`` serves of the state store, RabbitMQ and the campaigns' database.

It reads the live picture at each scrape. What is away is reported as ``floodgate_up`` 0, and its metrics are missing;
the rest is served. A scrape waits :data:`~floodgate.overview.reader.PATIENCE` at most for all parts together.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Final

from floodgate.broker.admission.contract import Snapshot
from floodgate.broker.admission.policy import SLOWABLE
from floodgate.broker.messages import queue_names
from floodgate.broker.messages.job import Priority
from floodgate.broker.process.event_loop import new_event_loop
from floodgate.broker.process.exposition import MetricsServer, render
from floodgate.broker.process.forced_exit import stop_on_signals
from floodgate.broker.process.metrics import (
    CAMPAIGNS,
    DEAD_LETTERS,
    DISK_FREE,
    DISK_LIMIT,
    DROPPED,
    IN_FLIGHT,
    JOBS_IN_LINE,
    LIMIT,
    LIMIT_USED,
    LIVE,
    LONGEST_LINE,
    NEEDED,
    NOT_KEPT,
    OLDEST_JOB,
    ON_LADDER,
    OTHER,
    OUTAGE,
    PART_UP,
    PAUSES,
    QUEUED,
    RABBITMQ_ALARM,
    RECEIVERS,
    RECIPIENTS,
    ROLLBACKS,
    SCRAPE,
    SENT_LAST_SECOND,
    SLOWED_CHATS,
    STORE_USED,
    UNREACHABLE,
    UNREAD,
    Metrics,
)
from floodgate.broker.settings.listen_address import ListenAddress
from floodgate.broker.settings.model import Settings
from floodgate.broker.state.capacity import used_share
from floodgate.overview.demand import needed_calls_in_flight
from floodgate.overview.picture import BotOverview, CampaignOverview, NodeResources, Overview, QueuedMessages
from floodgate.overview.reader import OverviewReader

STOP_SECONDS: Final = 10.0
_PAUSE_CAUSES: Final = frozenset(PAUSES.labels["cause"])


class Exporter:
    """Makes the text of a scrape. ``text`` belongs to one thread at a time."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._reader = OverviewReader(settings, "metrics")

    def text(self) -> bytes:
        """Read everything, and return the text. Blocks; raises no error of what it reads."""
        began = time.monotonic()
        overview = self._reader.read()
        metrics = measured(overview)
        used = used_share(self._settings) if overview.store.up else None
        if used is not None:
            metrics.set(STORE_USED, used)
        metrics.set(SCRAPE, time.monotonic() - began)
        return render(metrics)

    def close(self) -> None:
        """Close all connections. Safe to call twice, and before the first scrape."""
        self._reader.close()


def measured(overview: Overview) -> Metrics:
    """Return the metrics of a picture."""
    metrics = Metrics()
    metrics.set(PART_UP, float(overview.rabbitmq.up), "rabbitmq")
    metrics.set(PART_UP, float(overview.store.up), "store")
    if overview.disk is not None:
        metrics.set(PART_UP, float(overview.nodes is not None), "management")
    if overview.campaigns is not None:
        metrics.set(PART_UP, float(overview.campaigns.up), "campaigns")
    if overview.store.up:
        roles = Counter(process.role for process in overview.processes)
        for role in LIVE.labels["role"]:
            metrics.set(LIVE, roles[role], role)
    for node in overview.nodes or ():
        _measure_node(metrics, node)
    if overview.delayed is not None:
        metrics.set(ON_LADDER, overview.delayed)
    for bot in overview.bots:
        _measure_bot(metrics, bot)
    if None not in (needed := [needed_calls_in_flight(bot) for bot in overview.bots]):
        metrics.set(NEEDED, sum(calls for calls in needed if calls is not None))
    return metrics


def _measure_node(metrics: Metrics, node: NodeResources) -> None:
    for resource in RABBITMQ_ALARM.labels["resource"]:
        metrics.set(RABBITMQ_ALARM, float(resource in node.alarms), node.name, resource)
    if node.disk_free_bytes is not None:
        metrics.set(DISK_FREE, node.disk_free_bytes, node.name)
    if node.disk_limit_bytes is not None:
        metrics.set(DISK_LIMIT, node.disk_limit_bytes, node.name)


def _measure_bot(metrics: Metrics, bot: BotOverview) -> None:
    if bot.snapshot is not None:
        _measure_store(metrics, bot.name, bot.snapshot)
    if bot.messages is not None:
        _measure_queues(metrics, bot.name, bot.messages)
    for campaign in bot.campaigns or ():
        _measure_campaign(metrics, campaign)


def _measure_store(metrics: Metrics, bot: str, snapshot: Snapshot) -> None:
    metrics.set(SENT_LAST_SECOND, snapshot.sent_last_second, bot)
    metrics.set(LIMIT, snapshot.per_second_limit, bot)
    metrics.set(LIMIT_USED, snapshot.sent_last_minute / (60 * snapshot.per_second_limit), bot)
    metrics.set(IN_FLIGHT, snapshot.sending, bot)
    metrics.set(UNREACHABLE, snapshot.unreachable, bot)
    metrics.count(ROLLBACKS, bot, by=snapshot.rollbacks)
    metrics.set(OUTAGE, snapshot.outage.total_seconds() if snapshot.outage else 0.0, bot)
    longest = {line.priority: line.length for line in reversed(snapshot.longest_lines)}
    for priority in Priority:
        waiting, oldest = snapshot.waiting.get(priority, 0), snapshot.oldest.get(priority, timedelta())
        metrics.set(OLDEST_JOB, oldest.total_seconds(), bot, priority)
        metrics.set(JOBS_IN_LINE, waiting, bot, priority)
        metrics.set(LONGEST_LINE, longest.get(priority, min(waiting, 1)), bot, priority)
    for reason, number in snapshot.dropped.items():
        metrics.count(DROPPED, bot, reason, by=number)
    for reason, number in snapshot.not_kept.items():
        metrics.count(NOT_KEPT, bot, reason, by=number)
    for family in SLOWABLE:
        metrics.set(SLOWED_CHATS, snapshot.slowed_chats.get(family, 0), bot, family)
    pauses = Counter(
        ("chat" if pause.chat else "bot", pause.why if pause.why in _PAUSE_CAUSES else OTHER)
        for pause in snapshot.pauses
    )
    for scope in PAUSES.labels["scope"]:
        for cause in PAUSES.labels["cause"]:
            metrics.set(PAUSES, pauses[scope, cause], bot, scope, cause)


def _measure_queues(metrics: Metrics, bot: str, messages: QueuedMessages) -> None:
    for kind in QUEUED.labels["kind"]:
        metrics.set(QUEUED, messages.queued.get(kind, 0), bot, kind)
    unread = Counter(map(queue_names.family_of, messages.unread))
    for family in UNREAD.labels["family"]:
        metrics.set(UNREAD, unread[family], bot, family)
    metrics.set(DEAD_LETTERS, messages.queued.get("dead", 0), bot)
    metrics.set(RECEIVERS, messages.receivers, bot)


def _measure_campaign(metrics: Metrics, campaign: CampaignOverview) -> None:
    metrics.count(CAMPAIGNS, campaign.bot, campaign.state)
    if campaign.state not in ("running", "paused", "stopped"):
        return
    parts = {"left": campaign.left, "sent": campaign.sent, "refused": campaign.refused}
    parts["other"] = campaign.recipients - sum(parts.values())
    for state, number in parts.items():
        metrics.set(RECIPIENTS, number, campaign.bot, campaign.name, state)


def run_exporter(settings: Settings, address: ListenAddress, ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT. Call it from the process's main thread.

    Raises:
        SettingsError: no bot is configured, or the address is in use or is not one of this machine's.
    """
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(_serve(Exporter(settings), address, ready))


async def _serve(exporter: Exporter, address: ListenAddress, ready: Callable[[str], None]) -> None:
    stopping = asyncio.Event()
    server = MetricsServer(address, exporter.text)
    try:
        ready(await server.start())
        stop_on_signals(stopping.set, STOP_SECONDS)
        await stopping.wait()
    finally:
        await server.stop()
        await asyncio.to_thread(exporter.close)
