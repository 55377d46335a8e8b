"""What a store remembers: bots, chats with their lines, jobs. Values that one transaction loads, changes and saves.

They are mutable and belong to the transaction that loaded them. Times are microseconds of the store's clock; 0 is
"never".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple, Protocol

from floodgate.broker.admission.circuit import Circuit
from floodgate.broker.admission.clock import Anchor
from floodgate.broker.admission.policy import FloodWait, Policy
from floodgate.broker.admission.windows import Budget, Log
from floodgate.broker.messages.job import Priority


class State(IntEnum):
    """A job's state. Up to LOST the job stands in its line and can be the line's head."""

    WAITING = 0
    LOST = 1  # a worker began to send it and its lease ended
    ABSENT = 2  # it was missing at the head for too long; has its place again when it asks
    ABSENT_LOST = 3
    SENDING = 4
    SENT = 5
    DEAD = 6

    @property
    def ended(self) -> bool:
        return self >= State.SENT

    @property
    def in_line(self) -> bool:
        return self <= State.LOST


@dataclass(slots=True)
class JobRow:
    job_id: str
    chat: str | None
    priority: Priority
    state: State = State.WAITING
    place: int = 0  # order in the line: time of first sight, made unique and rising per chat
    units_before: int = 0  # units of all jobs that joined the line earlier
    units: int = 0  # what it counts in its chat
    due: int = 0  # when it asks again; of a lost job, when its lease ended
    since: int = 0  # of SENDING when it was admitted, of an ended job when it ended
    lease_end: int = 0
    bot_units: int = 0  # spent on the bot's budget
    paid: bool = False
    rank: int = 0  # its order among those who wait for the bot's budget; 0: it does not
    unsettled: int = 0  # calls that were admitted and not settled; all but one of them were lost with their workers
    handed_back: int = 0  # how many times in a row it was released before its call
    reason: str | None = None  # of a dead job
    result: int = 0  # where the store keeps the outcome of an ended job; 0: nowhere
    content: str | None = None  # of a job with a dedupe key: tells what it sends
    number: int = 0  # the store's own; 0: it is not stored yet
    counted: int | None = None  # the store's own: as which kind it is counted


@dataclass(slots=True)
class LineRow:
    length: int = 0
    units: int = 0  # units of all jobs that ever joined
    missing_since: int = 0


@dataclass(slots=True)
class ChatRow:
    chat: str
    log: Log
    interactive: LineRow = field(default_factory=LineRow)
    bulk: LineRow = field(default_factory=LineRow)
    last_place: int = 0
    sending: str | None = None
    sending_since: int = 0
    lease_end: int = 0
    rest_until: int = 0
    paused_until: int = 0
    pause_why: str = ""
    overtaken: int = 0  # interactive sends since the bulk line had a turn
    refused_at: int = 0  # when Telegram last said that the chat is unreachable
    refused_why: str = ""

    @property
    def busy(self) -> bool:
        """Whether jobs are in its lines, or in the middle of a call."""
        return self.sending is not None or self.interactive.length + self.bulk.length > 0

    def line(self, priority: Priority) -> LineRow:
        return self.interactive if priority is Priority.INTERACTIVE else self.bulk


class Alias(NamedTuple):
    """The chat that a chat key stands for: for good since it migrated (``until`` is 0), for a while if it is a name."""

    real: str
    until: int


@dataclass(slots=True)
class BotRow:
    bot: str
    anchor: Anchor
    free: Budget
    paid: Budget
    born: int  # when the store first heard of the bot; 0: it was vouched for
    granted: int = 0  # the last time a send was granted: time does not go back behind it
    paused_until: int = 0
    pause_why: str = ""
    permille: int = 1000
    slowed_at: int = 0
    refusals: list[FloodWait] = field(default_factory=list)
    aliases: int = 0
    minute: int = 0  # units granted in this minute and the one before
    this_minute: int = 0
    last_minute: int = 0
    circuit: Circuit | None = None  # None: no call has gone without an answer since the last one
    # The store's own: jobs that wait, by priority, and dead ones.
    counts: list[int] = field(default_factory=lambda: [0, 0, 0])

    def budget(self, paid: bool) -> Budget:
        return self.paid if paid else self.free


class UnitOfWork(Protocol):
    """One bot's part of the store, in one transaction. What is saved is seen by all once the transaction ends."""

    now: int
    bot: BotRow
    policy: Policy

    def save_bot(self) -> None: ...

    def job(self, job_id: str) -> JobRow | None: ...

    def save_job(self, job: JobRow) -> None: ...

    def drop_job(self, job_id: str) -> None: ...

    def keep_outcome(self, job: JobRow, outcome: str) -> None:
        """Keep the outcome of a job that ends now, for a while."""
        ...

    def outcome(self, job: JobRow) -> str | None:
        """The outcome of an ended job, as long as it is kept."""
        ...

    def list_not_kept(self, job_id: str, chat: str | None, reason: str) -> None:
        """Count and list a job that ends now without a dead letter."""
        ...

    def count_dropped(self, reason: str, letters: int) -> None: ...

    def chat(self, chat: str) -> ChatRow | None: ...

    def save_chat(self, chat: ChatRow) -> None: ...

    def drop_chat(self, chat: str) -> None: ...

    def head(self, chat: str, priority: Priority) -> JobRow | None:
        """The first job of a line."""
        ...

    def line(self, chat: str, priority: Priority) -> Sequence[JobRow]:
        """A whole line, in order."""
        ...

    def step_over(self, chat: str, priority: Priority, before: int, due_before: int) -> int:
        """Mark jobs of a line absent: those placed before ``before`` and due before ``due_before``. How many."""
        ...

    def alias(self, chat: str) -> Alias | None:
        """What a chat key stands for, or did: a name's alias stays for a while after its end."""
        ...

    def save_alias(self, chat: str, alias: Alias) -> None: ...

    def move_aliases(self, old_chat: str, new_chat: str) -> None:
        """Whatever stands for the old chat stands for the new one."""
        ...

    def units_ahead(self, job: JobRow, rank: int, asking_since: int) -> int:
        """Units of the jobs that wait for the same budget before ``rank`` and were due after ``asking_since``."""
        ...

    def wait_for_bot(self, job: JobRow) -> None: ...

    def stop_waiting(self, job: JobRow) -> None: ...
