"""What Floodgate measures: one table of metrics, and the registry that each process counts in.

Names follow Prometheus' conventions. The labels are a bot's name and words of which there are few; never a chat, a job
or a user. So a process has at most bots × words series of a metric, and :data:`MOST_SERIES` whatever happens: what is
counted beyond that is counted under ``other``.

A process has one :class:`Metrics`, made at its start and passed to what counts. Counting costs less than a
microsecond and opens nothing; rendering is in :mod:`floodgate.broker.process.exposition`, which needs an extra.

Everything is counted on the process's event loop. Any thread may read: it gets copies.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import product
from typing import Final

from floodgate.broker.messages.dead_letters import REASON_NO_ACTOR, REASONS

MOST_SERIES: Final = 10_000
"""The most series of one metric in one process."""
OTHER: Final = "other"
# Counters start at zero for so many bots, so that an alert sees their first increment. With more bots, a series begins
# when it is first counted.
BOTS_AT_ZERO: Final = 100

LATENCIES: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
WAITS: Final = (0.05, 0.25, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)


class MetricKind(StrEnum):
    """The types of metrics, as Prometheus names them."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class ProcessRole(StrEnum):
    """The processes that are measured or report that they live. ``EXPORTER`` is ``floodgate metrics``."""

    WORKER = "worker"
    HANDLERS = "handlers"
    UPDATES = "updates"
    GATEWAY = "gateway"
    CAMPAIGNS = "campaigns"
    EXPORTER = "exporter"
    WEB = "web"


BOT: Final = "bot"
PROCESSES: Final = (
    ProcessRole.WORKER,
    ProcessRole.HANDLERS,
    ProcessRole.UPDATES,
    ProcessRole.GATEWAY,
    ProcessRole.CAMPAIGNS,
    ProcessRole.WEB,
)
CONNECTED: Final = PROCESSES  # to RabbitMQ
PRIORITIES: Final = ("interactive", "bulk")
CAUSES: Final = ("rate", "line", "pause", "in-flight", "lease", "outage", "store")
SCOPES: Final = ("bot", "chat")
STATUSES: Final = ("2xx", "3xx", "4xx", "429", "5xx")
LIVE_PARTS: Final = "live"
# The first part of the path of a request to the web pages; `overview` is `/`.
PAGES: Final = (
    *("overview", "bots", "chats", "jobs", "dead-letters", "unreachable", "campaigns", "updates", "audit", "actions"),
    *(LIVE_PARTS, "data", "login", "logout", "static", "health", OTHER),
)
_REASONS: Final = tuple(sorted({*REASONS, REASON_NO_ACTOR}))


@dataclass(frozen=True, slots=True, eq=False)  # compared by identity, which is quick
class Metric:
    """A row of the table."""

    name: str
    kind: MetricKind
    help: str
    roles: tuple[ProcessRole, ...]
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The values that each label can have. Those of ``bot`` are the configured bots; empty means few, but not fixed."""
    unit: str = ""
    buckets: tuple[float, ...] = ()


def _counter(name: str, help: str, *roles: ProcessRole, unit: str = "", **labels: tuple[str, ...]) -> Metric:
    return Metric(f"floodgate_{name}_total", MetricKind.COUNTER, help, roles, labels, unit)


def _gauge(name: str, help: str, *roles: ProcessRole, unit: str = "", **labels: tuple[str, ...]) -> Metric:
    return Metric(f"floodgate_{name}", MetricKind.GAUGE, help, roles, labels, unit)


def _histogram(
    name: str,
    help: str,
    *roles: ProcessRole,
    buckets: tuple[float, ...] = LATENCIES,
    **labels: tuple[str, ...],
) -> Metric:
    return Metric(f"floodgate_{name}_seconds", MetricKind.HISTOGRAM, help, roles, labels, "seconds", buckets)


# Counted by processes.

SENDS: Final = _counter(
    "sends",
    "Calls to the Bot API that have ended, by outcome.",
    ProcessRole.WORKER,
    bot=(),
    outcome=("sent", "nothing-to-do", "retry", "uncertain", "paused", "migrated", "dead", "bot-refused"),
)
CALL: Final = _histogram("call", "Time from a call to the Bot API to its answer.", ProcessRole.WORKER, bot=())
PERMITS: Final = _counter(
    "permits", "Permits that admission has given: calls that may be made now.", ProcessRole.WORKER, bot=()
)
ADMISSION: Final = _histogram(
    "admission", "Time that the state store takes to decide whether a job may be sent.", ProcessRole.WORKER
)
WAIT: Final = _histogram(
    "wait",
    "Waits that admission has imposed on a job, by cause; `lease` is a call whose worker may have died, "
    "`store` an unavailable state store.",
    ProcessRole.WORKER,
    buckets=WAITS,
    bot=(),
    cause=CAUSES,
)
DELAYED: Final = _counter(
    "delayed",
    "Jobs put on the delay ladder, by cause: those of waits, or `retry` after a call.",
    ProcessRole.WORKER,
    bot=(),
    cause=(*CAUSES[:-1], "retry"),
)
TOO_MANY_REQUESTS: Final = _counter(
    "too_many_requests",
    "Answers 429 of Telegram, by what was paused: the chat, or the whole bot.",
    ProcessRole.WORKER,
    bot=(),
    scope=SCOPES,
)
RETRY_AFTER: Final = _histogram(
    "retry_after",
    "Pauses that Telegram has asked for with 429.",
    ProcessRole.WORKER,
    buckets=WAITS,
    bot=(),
    scope=SCOPES,
)
DEAD: Final = _counter(
    "dead",
    "Jobs and updates that were given up, by reason, with or without a dead letter. `shed`: typing and other jobs that "
    "would have been late.",
    ProcessRole.WORKER,
    ProcessRole.HANDLERS,
    bot=(),
    reason=(*_REASONS, "shed", "superseded"),
)
LOOP_LAG: Final = _histogram("event_loop_lag", "Delay of a timer on the process's event loop.", *PROCESSES)
PUBLISHED: Final = _counter(
    "published",
    "Messages published to RabbitMQ, by outcome: confirmed, or failed in any way.",
    *CONNECTED,
    outcome=("confirmed", "failed"),
)
CONFIRM: Final = _histogram("confirm", "Time from a message's submission to RabbitMQ's confirm.", *CONNECTED)
RECONNECTS: Final = _counter(
    "rabbitmq_reconnects", "Connections to RabbitMQ that were opened again after a loss.", *CONNECTED
)
UPDATES_RECEIVED: Final = _counter(
    "updates_received", "Updates that Telegram delivered and RabbitMQ confirmed.", ProcessRole.UPDATES, bot=()
)
RECEIVER_ACTIVE: Final = _gauge(
    "receiver_active", "1 while this process receives the bot's updates; 0 on standby.", ProcessRole.UPDATES, bot=()
)
UPDATES_HANDLED: Final = _counter(
    "updates_handled",
    "Updates that have ended, by outcome; `again` had been handled before.",
    ProcessRole.HANDLERS,
    bot=(),
    outcome=("handled", "again", "dead", "returned"),
)
UPDATE_LAG: Final = _histogram(
    "update_lag",
    "Time from an update's arrival at the receiver to the start of its handlers.",
    ProcessRole.HANDLERS,
    buckets=(*LATENCIES, 60.0, 300.0, 1800.0),
    bot=(),
)
HANDLER: Final = _histogram(
    "handler", "Time that the handlers of an update take, with retries.", ProcessRole.HANDLERS, bot=()
)
REQUESTS: Final = _counter(
    "gateway_requests",
    "HTTP requests that the gateway has answered, by kind and by class of the status.",
    ProcessRole.GATEWAY,
    kind=("call", "file", "api", "other"),
    status=STATUSES,
)
REQUEST: Final = _histogram(
    "gateway_request",
    "Time that the gateway takes to answer, which includes waiting for Telegram's answer.",
    ProcessRole.GATEWAY,
    kind=("call", "file", "api", "other"),
)
CALLERS: Final = _gauge("gateway_callers", "Callers that wait for the result of a job.", ProcessRole.GATEWAY)
RELEASED: Final = _counter("campaign_released", "Jobs that campaigns have released.", ProcessRole.CAMPAIGNS, bot=())
ENDED: Final = _counter(
    "campaign_ended",
    "Recipients of campaigns whose jobs have ended, by outcome.",
    ProcessRole.CAMPAIGNS,
    bot=(),
    outcome=("waiting", "sent", "failed", "unreachable", "uncertain", "skipped", "cancelled"),
)
LED: Final = _gauge("campaigns_led", "Campaigns that this process leads.", ProcessRole.CAMPAIGNS)

PAGES_ANSWERED: Final = _counter(
    "web_requests",
    "HTTP requests that the web pages have answered, by page and by class of the status; `live` and `data` are parts "
    "of a page.",
    ProcessRole.WEB,
    page=PAGES,
    status=STATUSES,
)
PAGES_TIME: Final = _histogram(
    "web_request",
    "Time that the web pages take to answer.",
    ProcessRole.WEB,
    page=tuple(page for page in PAGES if page != LIVE_PARTS),
)
EVENT_STREAMS: Final = _gauge("web_event_streams", "Live parts of pages that browsers have open.", ProcessRole.WEB)
LOGINS_REFUSED: Final = _counter(
    "web_logins_refused",
    "Logins that the web pages have refused: `token` was unknown, or there were too many `attempts`.",
    ProcessRole.WEB,
    cause=("token", "attempts"),
)

# Read by `floodgate metrics` from the state store, RabbitMQ and the campaigns' database.

PART_UP: Final = _gauge(
    "up",
    "1 if a part can be read; 0 if not. `management` is RabbitMQ's management API; missing if its address is not set.",
    ProcessRole.EXPORTER,
    part=("rabbitmq", "management", "store", "campaigns"),
)
RABBITMQ_ALARM: Final = _gauge(
    "rabbitmq_alarm",
    "1 while a node of RabbitMQ has run out of disk or memory, and RabbitMQ accepts no messages; 0 otherwise.",
    ProcessRole.EXPORTER,
    node=(),
    resource=("disk", "memory"),
)
DISK_FREE: Final = _gauge(
    "rabbitmq_disk_free_bytes", "Free disk of a node of RabbitMQ.", ProcessRole.EXPORTER, unit="bytes", node=()
)
DISK_LIMIT: Final = _gauge(
    "rabbitmq_disk_limit_bytes",
    "With less free disk than this, a node of RabbitMQ raises its alarm (`disk_free_limit`).",
    ProcessRole.EXPORTER,
    unit="bytes",
    node=(),
)
SENT_LAST_SECOND: Final = _gauge(
    "sent_last_second", "Units admitted in the last second, without paid ones.", ProcessRole.EXPORTER, bot=()
)
LIMIT: Final = _gauge(
    "limit_per_second",
    "Units a second that the bot may send now; lower than configured for a while after a 429. +Inf without limits.",
    ProcessRole.EXPORTER,
    bot=(),
)
LIMIT_USED: Final = _gauge(
    "limit_used_ratio",
    "Units admitted in the last minute, as a share of what the limit allows.",
    ProcessRole.EXPORTER,
    bot=(),
)
ON_LADDER: Final = _gauge(
    "delay_ladder_jobs",
    "Jobs of all bots on the delay ladder: parked until their turn, or scheduled for later.",
    ProcessRole.EXPORTER,
)
IN_FLIGHT: Final = _gauge("calls_in_flight", "Calls under way.", ProcessRole.EXPORTER, bot=())
NEEDED: Final = _gauge(
    "needed_calls_in_flight",
    "Calls that all bots need in flight for what there is to send, within their limits; 0 if there is nothing. Missing "
    "if RabbitMQ or the state store cannot be read.",
    ProcessRole.EXPORTER,
)
JOBS_IN_LINE: Final = _gauge(
    "jobs_in_line",
    "Jobs that wait in the lines of their chats, on the delay ladder or in a worker.",
    ProcessRole.EXPORTER,
    bot=(),
    priority=PRIORITIES,
)
LONGEST_LINE: Final = _gauge(
    "longest_line_jobs",
    "Jobs in the longest line of a chat, among the bot's ten longest.",
    ProcessRole.EXPORTER,
    bot=(),
    priority=PRIORITIES,
)
OLDEST_JOB: Final = _gauge(
    "oldest_job_seconds",
    "Age of the oldest job that waits in a line; 0 if none does.",
    ProcessRole.EXPORTER,
    unit="seconds",
    bot=(),
    priority=PRIORITIES,
)
QUEUED: Final = _gauge(
    "queue_messages",
    "Messages ready in the bot's queues, by kind.",
    ProcessRole.EXPORTER,
    bot=(),
    kind=(*PRIORITIES, "answers", "updates"),
)
UNREAD: Final = _gauge(
    "unread_partitions",
    "Queues that hold messages and have no consumer.",
    ProcessRole.EXPORTER,
    bot=(),
    family=("send", "updates"),
)
DEAD_LETTERS: Final = _gauge("dead_letters", "Dead letters that are kept.", ProcessRole.EXPORTER, bot=())
DROPPED: Final = _counter(
    "dead_letters_dropped",
    "Dead letters dropped because they expired or were too many.",
    ProcessRole.EXPORTER,
    bot=(),
    reason=_REASONS,
)
NOT_KEPT: Final = _counter(
    "dead_jobs_not_kept",
    "Jobs that ended without a dead letter.",
    ProcessRole.EXPORTER,
    bot=(),
    reason=(*_REASONS, "cancelled", "shed", "superseded"),
)
PAUSES: Final = _gauge(
    "pauses",
    "Pauses in force, by what is paused and why; of those of chats, the ten longest.",
    ProcessRole.EXPORTER,
    bot=(),
    scope=SCOPES,
    cause=("429", "unauthorized", "operator", OTHER),
)
SLOWED_CHATS: Final = _gauge(
    "slowed_chats",
    "Chats whose calls of a family keep a greater distance for a while, because Telegram answered 429 to one of them.",
    ProcessRole.EXPORTER,
    bot=(),
    calls=("messages", "edits", "typing"),
)
OUTAGE: Final = _gauge(
    "telegram_outage_seconds",
    "For how long Telegram has not been answering this bot; 0 while it answers.",
    ProcessRole.EXPORTER,
    unit="seconds",
    bot=(),
)
ROLLBACKS: Final = _counter(
    "store_rollbacks",
    "How often the state store was found to have lost its last writes: a lagging replica, an older file, a crash.",
    ProcessRole.EXPORTER,
    bot=(),
)
UNREACHABLE: Final = _gauge("unreachable_chats", "Chats that Telegram refuses.", ProcessRole.EXPORTER, bot=())
RECEIVERS: Final = _gauge(
    "receivers",
    "Processes that receive the bot's updates or stand by; 0 also for a bot that uses none.",
    ProcessRole.EXPORTER,
    bot=(),
)
STORE_USED: Final = _gauge(
    "store_used_ratio",
    "Used share of the space that the state store has: of its file system, or of Redis's memory.",
    ProcessRole.EXPORTER,
)
CAMPAIGNS: Final = _gauge(
    "campaigns",
    "The latest 20 campaigns, by state.",
    ProcessRole.EXPORTER,
    bot=(),
    state=("draft", "ready", "running", "paused", "stopped", "done", "cancelled"),
)
RECIPIENTS: Final = _gauge(
    "campaign_recipients",
    "Recipients of a campaign that runs, is paused or was stopped, among the latest 20; `left` have not ended yet.",
    ProcessRole.EXPORTER,
    bot=(),
    campaign=(),
    state=("left", "sent", "refused", "other"),
)
LIVE: Final = _gauge(
    "processes",
    "Processes that have reported within ten seconds, by role.",
    ProcessRole.EXPORTER,
    role=PROCESSES,
)
SCRAPE: Final = _gauge("scrape_seconds", "Time that reading all of this took.", ProcessRole.EXPORTER, unit="seconds")

# Of every process.

INFO: Final = _gauge("process_info", "1; the labels describe the process.", *ProcessRole, role=(), version=())

TABLE: Final[tuple[Metric, ...]] = (
    *(SENDS, CALL, PERMITS, ADMISSION, WAIT, DELAYED, TOO_MANY_REQUESTS, RETRY_AFTER, DEAD),
    *(LOOP_LAG, PUBLISHED, CONFIRM, RECONNECTS),
    *(UPDATES_RECEIVED, RECEIVER_ACTIVE, UPDATES_HANDLED, UPDATE_LAG, HANDLER),
    *(REQUESTS, REQUEST, CALLERS, RELEASED, ENDED, LED),
    *(PAGES_ANSWERED, PAGES_TIME, EVENT_STREAMS, LOGINS_REFUSED),
    *(PART_UP, SENT_LAST_SECOND, LIMIT, LIMIT_USED, IN_FLIGHT, JOBS_IN_LINE, LONGEST_LINE, OLDEST_JOB),
    *(QUEUED, ON_LADDER, UNREAD, DEAD_LETTERS, DROPPED, NOT_KEPT, PAUSES, SLOWED_CHATS, OUTAGE),
    *(UNREACHABLE, RECEIVERS, STORE_USED, ROLLBACKS, RABBITMQ_ALARM, DISK_FREE, DISK_LIMIT),
    *(NEEDED, CAMPAIGNS, RECIPIENTS, LIVE, SCRAPE, INFO),
)


def status_class(status: int) -> str:
    """Return the class of an HTTP status, one of :data:`STATUSES`. A request without an answer counts as failed."""
    return "429" if status == 429 else f"{status // 100 or 5}xx"


@dataclass(slots=True)
class Distribution:
    """Observations of a histogram: how many fell into each bucket (the last is above all bounds), and their sum."""

    counts: list[int]
    sum: float = 0.0

    @property
    def count(self) -> int:
        """The number of observations."""
        return sum(self.counts)


LabelValues = tuple[str, ...]
"""The values of a metric's labels, in the order of the table."""


class Metrics:
    """What one process has counted. See the module for threads and bounds.

    Args:
        role: the process's role. Its counters start at zero.
        bots: the bots for which they do.
    """

    def __init__(self, role: ProcessRole | None = None, bots: Sequence[str] = ()) -> None:
        self.role = role
        self._values: dict[Metric, dict[LabelValues, float]] = {metric: {} for metric in TABLE}
        self._distributions: dict[Metric, dict[LabelValues, Distribution]] = {metric: {} for metric in TABLE}
        self._readers: dict[Metric, Callable[[], float]] = {}
        for metric in TABLE:
            if role in metric.roles and metric.kind is MetricKind.COUNTER and role is not ProcessRole.EXPORTER:
                self._values[metric] = dict.fromkeys(_all_values(metric, bots[:BOTS_AT_ZERO]), 0.0)

    def count(self, metric: Metric, *labels: str, by: float = 1.0) -> None:
        """Add to a counter."""
        values = self._values[metric]
        if (before := values.get(labels)) is None:
            labels = _bounded(values, labels)
            before = values.get(labels, 0.0)
        values[labels] = before + by

    def set(self, metric: Metric, value: float, *labels: str) -> None:
        """Set a gauge."""
        values = self._values[metric]
        values[labels if labels in values else _bounded(values, labels)] = value

    def observe(self, metric: Metric, value: float, *labels: str) -> None:
        """Add an observation to a histogram."""
        found = self._distributions[metric].get(labels)
        if found is None:
            found = self._begin(metric, labels)
        found.counts[bisect_left(metric.buckets, value)] += 1
        found.sum += value

    def follow(self, metric: Metric, read: Callable[[], float]) -> None:
        """Read a gauge without labels whenever the metrics are read, from any thread."""
        self._readers[metric] = read

    def values(self, metric: Metric) -> Mapping[LabelValues, float]:
        """Return the values of a counter or gauge."""
        if (read := self._readers.get(metric)) is not None:
            return {(): read()}
        return self._values[metric].copy()

    def distributions(self, metric: Metric) -> Mapping[LabelValues, Distribution]:
        """Return the observations of a histogram."""
        found = self._distributions[metric].copy()
        return {labels: Distribution(each.counts.copy(), each.sum) for labels, each in found.items()}

    def present(self) -> Iterator[Metric]:
        """Yield the metrics that have a series, in the order of the table."""
        return (
            metric for metric in TABLE if self._values[metric] or self._distributions[metric] or metric in self._readers
        )

    def _begin(self, metric: Metric, labels: LabelValues) -> Distribution:
        distributions = self._distributions[metric]
        return distributions.setdefault(_bounded(distributions, labels), Distribution([0] * (len(metric.buckets) + 1)))


def _bounded(series: Mapping[LabelValues, object], labels: LabelValues) -> LabelValues:
    return labels if len(series) < MOST_SERIES else (OTHER,) * len(labels)


def _all_values(metric: Metric, bots: Sequence[str]) -> Iterable[LabelValues]:
    return product(*(bots if name == BOT else values for name, values in metric.labels.items()))
