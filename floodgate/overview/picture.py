"""The live picture, as values in the domain's words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from floodgate.broker.admission.contract import Snapshot
from floodgate.broker.errors import FloodgateError
from floodgate.broker.state.activity import ProcessReport
from floodgate.overview.last_minute import LastMinute


@dataclass(frozen=True, slots=True)
class Health:
    """Whether something that Floodgate depends on answers."""

    text: str
    """A sentence or a version: what is wrong and what to do, or what is known of it."""
    fault: FloodgateError | None = None

    @property
    def up(self) -> bool:
        """Whether it answers."""
        return self.fault is None


@dataclass(frozen=True, slots=True)
class NodeResources:
    """What a running node of RabbitMQ has left. What it does not tell is None."""

    name: str
    alarms: tuple[str, ...]
    """`disk` or `memory`, of which it has run out. While it has, RabbitMQ accepts no messages."""
    disk_free_bytes: int | None
    disk_limit_bytes: int | None
    """With less than this free, it raises the alarm."""

    @property
    def disk_left_bytes(self) -> int | None:
        """How much can be written before the alarm."""
        if self.disk_free_bytes is None or self.disk_limit_bytes is None:
            return None
        return self.disk_free_bytes - self.disk_limit_bytes


@dataclass(frozen=True, slots=True)
class QueuedMessages:
    """The messages ready in a bot's queues. Jobs on the delay ladder are in no bot's queue."""

    queued: Mapping[str, int]
    """By kind: jobs by priority, answers to queries, updates, dead letters."""
    unread: Mapping[str, int]
    """By queue, for partitions without a consumer."""
    receivers: int
    """How many processes receive the bot's updates, or stand ready to."""


@dataclass(frozen=True, slots=True)
class CampaignOverview:
    """A campaign and what became of its recipients."""

    name: str
    bot: str
    state: str
    reason: str | None
    """Why a rule stopped it."""
    recipients: int
    sent: int
    refused: int
    """Recipients whom Telegram refused, and those whose message may or may not have been sent."""
    left: int
    eta: timedelta | None
    """Time until it is done at the rate that the limits grant; None if it does not run, or cannot be foreseen."""

    @property
    def ended(self) -> int:
        """Recipients who do not wait any more."""
        return self.recipients - self.left


@dataclass(frozen=True, slots=True)
class BotOverview:
    """One bot. What could not be read is None."""

    name: str
    full_rate: float
    """Messages a second that it may send when no 429 has slowed it; infinite without limits."""
    snapshot: Snapshot | None
    messages: QueuedMessages | None
    campaigns: tuple[CampaignOverview, ...] | None
    """The latest first; also None if there is no database of campaigns."""
    last_minute: LastMinute = field(default_factory=LastMinute)


@dataclass(frozen=True, slots=True)
class Overview:
    """The live picture of all bots, or of those that were asked for."""

    bots: tuple[BotOverview, ...]
    rabbitmq: Health
    store: Health
    campaigns: Health | None
    """The campaigns' database; None if there is none, or its extra is not installed."""
    dropped_without_bot: Mapping[str, int]
    """Dead letters without a bot that were dropped, by reason, since the store was created."""
    missing_state_file: str | None = None
    """A sentence about a state file that does not exist yet: no job has been handled."""
    processes: tuple[ProcessReport, ...] = ()
    """Those that have reported to the store in the last seconds, with the partitions that they hold."""
    delayed: int | None = None
    """Jobs of all bots on the delay ladder; None if RabbitMQ could not be read."""
    nodes: tuple[NodeResources, ...] | None = None
    """Of RabbitMQ; None if its management API could not be read, or its address is not set."""
    disk: Health | None = None
    """The disk and memory of RabbitMQ's nodes; None if the address of the management API is not set."""
