"""Reports of processes, and the history of what they counted.

Once a second each process reports that it lives, which queues it consumes, and what it has counted for each bot since
its last report. A process that has not reported for :data:`LIVE_SECONDS` is gone.

The history is a ring of buckets for each bot: one a second for ten minutes, one a minute for seven days. Processes add
to the same buckets. A counter's bucket holds the sum of what they reported; a gauge's bucket holds one sample of the
store's own numbers, which the first process that reports the bot as *sampled* in that second takes. A worker samples
the bots whose jobs it sends. So the gauges have a gap while no worker runs, and so have the counters.

Bounds: :data:`MOST_BUCKETS` buckets a bot, each a text of at most :data:`BUCKET_BYTES` (typically 60), so at most 4 MB
a bot and typically less than 1 MB. Old buckets are dropped as new ones come, a few at a time.

The history is a picture, not a ledger: what a process counts in the second before it is killed is missing, and a report
whose answer was lost on the way may count twice.

Time is the store's clock: Unix time of the machine (SQLite) or of the server (Redis).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum, StrEnum
from typing import Final, Protocol

LIVE_SECONDS: Final = 10
"""A process that has not reported for this long is gone."""


class Series(StrEnum):
    """The series of a bot's history. The order is that of the stored texts: add new ones at the end."""

    SENT = "sent"
    RETRIED = "retried"
    """Calls that failed and are repeated."""
    REFUSED = "refused"
    """Calls that Telegram refused for good."""
    DEAD = "dead"
    """Jobs and updates that were given up."""
    PAUSED_CHAT = "429-chat"
    """Answers 429 that paused the chat."""
    PAUSED_BOT = "429-bot"
    """Answers 429 that paused the bot."""
    WAITS_RATE = "waits-rate"
    """Waits that admission imposed, by cause."""
    WAITS_LINE = "waits-line"
    WAITS_PAUSE = "waits-pause"
    WAITS_IN_FLIGHT = "waits-in-flight"
    WAITS_OUTAGE = "waits-outage"
    WAITS_STORE = "waits-store"
    RELEASED = "released"
    """Jobs that campaigns released."""
    RECEIVED = "received"
    """Updates that Telegram delivered."""
    HANDLED = "handled"
    """Updates whose handlers have begun."""
    UPDATE_LAG = "update-lag-seconds"
    """The sum of the lags of these updates."""
    WAITING_INTERACTIVE = "waiting-interactive"
    """Jobs that wait; the most of a minute."""
    WAITING_BULK = "waiting-bulk"
    IN_FLIGHT = "in-flight"
    """Calls under way; the most of a minute."""
    LIMIT = "limit-per-second"
    """Units that the bot may send in a second; the least of a minute. Missing without limits."""
    CALLS = "calls"
    """Calls to the Bot API that were answered, or timed out."""
    CALL_TIME = "call-seconds"
    """The sum of the times that these calls took."""

    @property
    def is_gauge(self) -> bool:
        """Whether its buckets hold a sample rather than a sum."""
        return self in GAUGES


GAUGES: Final = frozenset({Series.WAITING_INTERACTIVE, Series.WAITING_BULK, Series.IN_FLIGHT, Series.LIMIT})


class Resolution(Enum):
    """The lengths of buckets, with the number that is kept of each."""

    SECOND = (1, 600)
    MINUTE = (60, 7 * 24 * 60)

    @property
    def seconds(self) -> int:
        """The length of a bucket."""
        return int(self.value[0])

    @property
    def buckets(self) -> int:
        """The number of buckets that are kept of a bot."""
        return int(self.value[1])

    @property
    def span(self) -> timedelta:
        """How far back the buckets reach."""
        return timedelta(seconds=self.seconds * self.buckets)


MOST_BUCKETS: Final = sum(resolution.buckets for resolution in Resolution)
BUCKET_BYTES: Final = 275

Counts = Mapping[Series, float]


@dataclass(frozen=True, slots=True)
class ProcessReport:
    """One process."""

    id: str
    """Unique among all processes. A worker's is its consumer's name in RabbitMQ."""
    role: str
    """`worker`, `gateway`, `updates`, `handlers`, `campaigns` or `web`."""
    host: str
    pid: int
    version: str
    uptime: timedelta
    partitions: tuple[str, ...] = ()
    """The queues that it consumes. As returned by :meth:`Activity.processes`, those of which it is the active
    consumer."""


@dataclass(frozen=True, slots=True)
class History:
    """A bot's buckets, oldest first. There is none for a time in which no process reported."""

    times: Sequence[int]
    """When each bucket begins, in seconds of Unix time by the store's clock."""
    values: Mapping[Series, Sequence[float | None]]
    """A value for each bucket. None: no sample of a gauge was taken."""


class Activity(Protocol):
    """The reports and the history in a state store.

    Any method raises ``StateUnavailableError`` if the store is unavailable.
    """

    def report(self, process: ProcessReport, increments: Mapping[str, Counts], sampled: Collection[str] = ()) -> None:
        """Record that a process lives, and add what it has counted by bot since its last report.

        Args:
            sampled: bots whose gauges are sampled now, unless another process has done so in this second.
        """
        ...

    def leave(self, process: ProcessReport, increments: Mapping[str, Counts]) -> None:
        """:meth:`report` for the last time: the process is gone at once."""
        ...

    def processes(self) -> Sequence[ProcessReport]:
        """The processes that have reported within :data:`LIVE_SECONDS`, by role, host and pid."""
        ...

    def history(self, bot: str, resolution: Resolution, last: timedelta | None = None) -> History:
        """A bot's buckets: all that are kept, or those of the ``last`` so long. The latest one is still growing."""
        ...

    def close(self) -> None:
        """Release files and sockets. Safe to call twice, and unused."""
        ...
