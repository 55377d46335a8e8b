"""The alert rules. docs/alerts.md has a heading for each, which says what to do."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any, Final

from deploy.queries import labelled, quantile
from floodgate.broker.process.metrics import (
    CAMPAIGNS,
    DEAD_LETTERS,
    DISK_FREE,
    DISK_LIMIT,
    LIMIT,
    LIMIT_USED,
    LIVE,
    LOOP_LAG,
    OLDEST_JOB,
    OUTAGE,
    PART_UP,
    PAUSES,
    QUEUED,
    RABBITMQ_ALARM,
    STORE_USED,
    TOO_MANY_REQUESTS,
    UNREAD,
    UPDATE_LAG,
)

RUNBOOK: Final = "docs/alerts.md"
NOW: Final = timedelta()
# About a million jobs of 2 kB.
LOW_DISK_BYTES: Final = 2e9

_PAUSED: Final = f"(max by (bot) ({labelled(PAUSES, scope='bot')}) > 0)"
_WAITING: Final = f'sum by (bot) ({QUEUED.name}{{kind=~"interactive|bulk"}})'


class Severity(StrEnum):
    """How soon somebody has to look."""

    CRITICAL = "critical"  # now: nothing is sent, or messages may be lost soon
    WARNING = "warning"  # today


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert rule. ``hold`` is how long ``query`` must have a result before it fires."""

    name: str
    query: str
    hold: timedelta
    severity: Severity
    summary: str
    """One sentence, with the values of labels as Prometheus' templates."""

    @property
    def runbook(self) -> str:
        """The heading that says what to do."""
        return f"{RUNBOOK}#{self.name.lower()}"

    def rule(self) -> dict[str, Any]:
        """The rule as Prometheus reads it."""
        return {
            "alert": self.name,
            "expr": self.query,
            "for": f"{int(self.hold.total_seconds())}s",
            "labels": {"severity": self.severity.value},
            "annotations": {"summary": self.summary, "runbook": self.runbook},
        }


ALERTS: Final = (
    Alert(
        "FloodgateMetricsMissing",
        f"absent({PART_UP.name})",
        timedelta(minutes=5),
        Severity.CRITICAL,
        "floodgate metrics is not scraped, so the other alerts are blind.",
    ),
    Alert(
        "FloodgatePartAway",
        f'{PART_UP.name}{{part!="management"}} == 0',
        timedelta(minutes=1),
        Severity.CRITICAL,
        "{{ $labels.part }} cannot be read.",
    ),
    Alert(
        "FloodgateQueueUnread",
        f"(max by (bot, family) ({UNREAD.name}) > 0) unless on (bot) {_PAUSED}",
        timedelta(minutes=2),
        Severity.CRITICAL,
        "{{ $value }} {{ $labels.family }} queues of bot {{ $labels.bot }} hold messages and have no consumer.",
    ),
    Alert(
        "FloodgateLimitUnused",
        f"(max by (bot) ({LIMIT_USED.name}) < 0.5 and on (bot) max by (bot) ({LIMIT.name}) < Inf"
        f" and on (bot) {_WAITING} > 100) unless on (bot) {_PAUSED}",
        timedelta(minutes=5),
        Severity.WARNING,
        "Bot {{ $labels.bot }} uses {{ $value | humanizePercentage }} of its limit while jobs wait in its queues.",
    ),
    Alert(
        "FloodgateOldestJobTooOld",
        f"max by (bot, priority) ({labelled(OLDEST_JOB, priority='interactive')}) > 300"
        f" or max by (bot, priority) ({labelled(OLDEST_JOB, priority='bulk')}) > 21600",
        timedelta(minutes=2),
        Severity.WARNING,
        "The oldest {{ $labels.priority }} job of bot {{ $labels.bot }} has waited {{ $value | humanizeDuration }}.",
    ),
    Alert(
        "FloodgateTooManyRequests",
        f"sum by (bot, scope) (increase({TOO_MANY_REQUESTS.name}[10m])) > 5",
        NOW,
        Severity.WARNING,
        "Telegram has answered 429 to bot {{ $labels.bot }} {{ $value | humanize }} times in ten minutes.",
    ),
    Alert(
        "FloodgateTelegramDown",
        f"max by (bot) ({OUTAGE.name}) > 60",
        NOW,
        Severity.CRITICAL,
        "Telegram has not answered bot {{ $labels.bot }} for {{ $value | humanizeDuration }}.",
    ),
    Alert(
        "FloodgateBotRefused",
        f"max by (bot) ({labelled(PAUSES, cause='unauthorized')}) > 0",
        NOW,
        Severity.CRITICAL,
        "Telegram refuses the token of bot {{ $labels.bot }}.",
    ),
    Alert(
        "FloodgateDeadLettersRising",
        f"max by (bot) (delta({DEAD_LETTERS.name}[15m])) > 20",
        NOW,
        Severity.WARNING,
        "Bot {{ $labels.bot }} has {{ $value | humanize }} more dead letters than 15 minutes ago.",
    ),
    Alert(
        "FloodgateCampaignStopped",
        f"max by (bot) ({labelled(CAMPAIGNS, state='stopped')}) > 0",
        NOW,
        Severity.WARNING,
        "A rule has stopped {{ $value }} campaigns of bot {{ $labels.bot }}.",
    ),
    Alert(
        "FloodgateCampaignNotLed",
        f"(max by (bot) ({labelled(CAMPAIGNS, state='running')}) > 0)"
        f" and on () (max({labelled(LIVE, role='campaigns')}) == 0)",
        timedelta(minutes=2),
        Severity.CRITICAL,
        "{{ $value }} campaigns of bot {{ $labels.bot }} are running, and no process sends them.",
    ),
    Alert(
        "FloodgateStoreNearlyFull",
        f"max({STORE_USED.name}) > 0.85",
        timedelta(minutes=10),
        Severity.CRITICAL,
        "The state store uses {{ $value | humanizePercentage }} of its space.",
    ),
    Alert(
        "FloodgateRabbitMQAlarm",
        f"max by (node, resource) ({RABBITMQ_ALARM.name}) > 0",
        NOW,
        Severity.CRITICAL,
        "RabbitMQ's node {{ $labels.node }} has run out of {{ $labels.resource }}, so RabbitMQ accepts no messages.",
    ),
    Alert(
        "FloodgateRabbitMQDiskLow",
        f"max by (node) ({DISK_FREE.name}) - max by (node) ({DISK_LIMIT.name}) < {LOW_DISK_BYTES:.0f}",
        timedelta(minutes=5),
        Severity.CRITICAL,
        "After {{ $value | humanize }}B more on the disk of {{ $labels.node }}, RabbitMQ accepts no messages.",
    ),
    Alert(
        "FloodgateRabbitMQUnwatched",
        f"{labelled(PART_UP, part='management')} == 0",
        timedelta(minutes=10),
        Severity.WARNING,
        "RabbitMQ's management API cannot be read, so nobody watches RabbitMQ's disk.",
    ),
    Alert(
        "FloodgateUpdateLag",
        f"{quantile(0.95, UPDATE_LAG, 'bot', interval='5m')} > 10",
        timedelta(minutes=5),
        Severity.WARNING,
        "Handlers of bot {{ $labels.bot }} begin {{ $value | humanizeDuration }} after an update has arrived (p95).",
    ),
    Alert(
        "FloodgateLoopLag",
        f"{quantile(0.99, LOOP_LAG, 'job', 'instance', interval='5m')} > 0.25",
        timedelta(minutes=5),
        Severity.WARNING,
        "The event loop of {{ $labels.instance }} is {{ $value | humanizeDuration }} late (p99).",
    ),
)


def rules() -> dict[str, Any]:
    """The file of rules as Prometheus reads it."""
    return {"groups": [{"name": "floodgate", "rules": [alert.rule() for alert in ALERTS]}]}
