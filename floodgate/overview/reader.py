"""Reads the live picture.

Four parts are read at the same time, each on a thread of its own: RabbitMQ's queues, its nodes, the state store, and
the campaigns' database. A part that cannot be read, or not in time, is shown as such; the others are still shown.

Bounds. RabbitMQ is asked once for each queue, and once for its nodes; the store reads one snapshot and one minute of
history of each bot, and the reports of the processes; of the campaigns, the latest 20 are read. None of it grows with
the number of jobs. A part is read at most :data:`~floodgate.overview.part.SHARE` of the time, or every five seconds if
that is more often; a reader that is asked more often returns what was read last. Connections are kept between reads.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Final, Self

from floodgate.broker.admission import policy
from floodgate.broker.admission.contract import Admission, Snapshot
from floodgate.broker.amqp.connections import Connections
from floodgate.broker.settings.model import Settings
from floodgate.broker.state.activity import Activity, ProcessReport, Resolution
from floodgate.broker.state.stores import missing_state_file, open_activity, open_store
from floodgate.broker.worker.retention import NO_BOT
from floodgate.overview.campaigns import CampaignReader
from floodgate.overview.last_minute import MINUTE, LastMinute, last_minute
from floodgate.overview.node_resources import disk_health, read_node_resources
from floodgate.overview.part import PartReader, Reading
from floodgate.overview.picture import BotOverview, CampaignOverview, Health, NodeResources, Overview
from floodgate.overview.queues import MessageCounts, QueueCounts

PATIENCE: Final = timedelta(seconds=3)
"""How long a read waits for all parts together."""
CLOSE_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class StoreState:
    """What the state store knows of the bots, by name."""

    snapshots: Mapping[str, Snapshot]
    dropped_without_bot: Mapping[str, int]
    missing: str | None
    """A sentence about a state file that does not exist yet."""
    minutes: Mapping[str, LastMinute] = field(default_factory=dict)
    processes: tuple[ProcessReport, ...] = ()


class OverviewReader:
    """Reads the live picture of some bots. Nothing is opened before the first read. It belongs to one thread.

    Args:
        bots: the bots to read, which must be configured; by default, all of them.
        role_name: part of the connection's name in RabbitMQ.
        patience: how long a read waits; None waits as long as the time-outs of RabbitMQ and the store.

    Raises:
        SettingsError: no bot is configured.
    """

    def __init__(
        self,
        settings: Settings,
        role_name: str,
        *,
        bots: list[str] | None = None,
        patience: timedelta | None = PATIENCE,
    ) -> None:
        self._settings = settings
        self._patience = patience
        self._policy = policy.policy_of(settings)
        self._bots = sorted(settings.require_bots()) if bots is None else bots
        self._connections = Connections(settings, role_name)
        self._store: Admission | None = None  # written, like the next two, by the thread that reads the store
        self._activity: Activity | None = None
        self._was_missing = False  # the state file, when the store was opened
        self._campaign_reader = CampaignReader(settings)
        queues = QueueCounts(settings, self._connections, self._bots)
        self._queues = PartReader("RabbitMQ", queues.read)
        self._nodes = PartReader("RabbitMQ's management API", partial(read_node_resources, settings))
        self._state = PartReader("The state store", self._read_store)
        self._campaigns = PartReader("The campaigns' database", self._campaign_reader.read)

    def read(self, *, fresh: bool = False) -> Overview:
        """Read the picture. Blocks for at most ``patience``; raises no error of RabbitMQ, the store or the database.

        Args:
            fresh: read everything now, however lately it was read.
        """
        for part in (self._queues, self._nodes, self._state, self._campaigns):
            part.begin(fresh=fresh)
        left = _countdown(self._patience)
        queues, state, campaigns = self._queues.end(left()), self._state.end(left()), self._campaigns.end(left())
        nodes = self._nodes.end(PATIENCE.total_seconds() if self._patience is None else left())
        known = state.value or StoreState({}, {}, None)
        no_campaigns = campaigns.fault is None and campaigns.value is None
        return Overview(
            bots=tuple(self._bot(bot, queues.value, known, campaigns.value) for bot in self._bots),
            rabbitmq=queues.health(f"version {'.'.join(map(str, self._connections.server_version))}"),
            store=state.health("answers"),
            campaigns=None if no_campaigns else campaigns.health("answers"),
            dropped_without_bot=known.dropped_without_bot,
            missing_state_file=known.missing,
            processes=known.processes,
            delayed=None if queues.value is None else queues.value.delayed,
            nodes=nodes.value,
            disk=_disk(nodes),
        )

    def _bot(
        self,
        bot: str,
        queues: MessageCounts | None,
        state: StoreState,
        campaigns: Sequence[CampaignOverview] | None,
    ) -> BotOverview:
        its = None if campaigns is None else tuple(each for each in campaigns if each.bot == bot)
        full_rate = policy.per_second(self._policy.rates(bot).free)
        minute = state.minutes.get(bot, LastMinute())
        messages = None if queues is None else queues.by_bot.get(bot)
        return BotOverview(bot, full_rate, state.snapshots.get(bot), messages, its, minute)

    def _read_store(self) -> StoreState:
        missing = missing_state_file(self._settings)
        if self._store is None or self._activity is None or self._was_missing:
            self._close_store()
            self._store = open_store(self._settings, create=False)
            self._activity = open_activity(self._settings, create=False)
        self._was_missing = missing is not None
        activity = self._activity
        return StoreState(
            {bot: self._store.snapshot(bot) for bot in self._bots},
            self._store.snapshot(NO_BOT).dropped,
            missing,
            {bot: last_minute(activity.history(bot, Resolution.SECOND, MINUTE)) for bot in self._bots},
            tuple(activity.processes()),
        )

    def close(self) -> None:
        """Close all connections. Safe to call twice, and before the first read."""
        self._connections.stop(CLOSE_SECONDS)
        self._campaign_reader.close()
        self._close_store()

    def _close_store(self) -> None:
        for opened in (self._store, self._activity):
            if opened is not None:
                opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_raised: object) -> None:
        self.close()


def _disk(nodes: Reading[tuple[NodeResources, ...] | None]) -> Health | None:
    if nodes.value is not None:
        return disk_health(nodes.value)
    return None if nodes.fault is None else nodes.health("")


def _countdown(patience: timedelta | None) -> Callable[[], float | None]:
    """Return a function that tells how many seconds of ``patience`` are left; None without a bound."""
    if patience is None:
        return lambda: None
    end = time.monotonic() + patience.total_seconds()
    return lambda: max(0.0, end - time.monotonic())
