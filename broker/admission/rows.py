"""The rows of a store: bots, chats with their lines, jobs. A transaction loads, changes and saves them.

Rows are mutable and belong to the transaction that loaded them. Times are microseconds of the store's clock; 0 means
never.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple, Protocol

from floodgate.broker.admission import policy
from floodgate.broker.admission.circuit import Circuit
from floodgate.broker.admission.clock import Anchor
from floodgate.broker.admission.contract import CallFamily
from floodgate.broker.admission.policy import FloodWait, Policy
from floodgate.broker.admission.windows import Budget, Log
from floodgate.broker.messages.job import Priority


class State(IntEnum):
    """A job's state. Up to LOST the job is in its line and can be the line's head."""

    WAITING = 0
    LOST = 1  # a worker began to send it and its lease ended
    ABSENT = 2  # missing at the head for too long; regains its place when it asks
    ABSENT_LOST = 3
    SENDING = 4
    SENT = 5
    DEAD = 6

    @property
    def ended(self) -> bool:
        """Whether the job was sent or is dead."""
        return self >= State.SENT

    @property
    def in_line(self) -> bool:
        """Whether the job is in its line."""
        return self <= State.LOST

    @property
    def untouched(self) -> bool:
        """Whether the job waits, and no call for it was lost."""
        return self in (State.WAITING, State.ABSENT)


@dataclass(slots=True)
class JobRow:
    """A job in the ledger."""

    job_id: str
    chat: str | None
    priority: Priority
    state: State = State.WAITING
    place: int = 0  # order in the line: the time of the first ask, made unique and increasing per chat
    units_before: int = 0  # units of all jobs that joined the line earlier
    units: int = 0  # that it counts for its chat
    due: int = 0  # when it asks again; for a lost job, when its lease ended
    since: int = 0  # when a SENDING job was admitted, or when an ended job ended
    lease_end: int = 0
    bot_units: int = 0  # spent on the bot's budget
    paid: bool = False
    rank: int = 0  # its order among the jobs that wait for the bot's budget; 0: it does not wait
    unsettled: int = 0  # calls that were admitted and not settled; all but one of them were lost with their workers
    handed_back: int = 0  # how many times in a row it was released before its call
    reason: str | None = None  # for a dead job
    result: int = 0  # where the store keeps the outcome of an ended job; 0: nowhere
    content: str | None = None  # for a job with a dedupe key: identifies what it sends
    key: str | None = None  # under which a newer job may take its place
    variant: str = ""
    final: bool = False
    # Jobs that took the place of each other: the id of the first, and in the row of the first, of the one that has it.
    chain: str | None = None
    number: int = 0  # used by the store; 0: not stored yet
    counted: int | None = None  # used by the store: the kind under which the job is counted


@dataclass(slots=True)
class LineRow:
    """A line: one chat's waiting jobs of one priority."""

    length: int = 0
    units: int = 0  # units of all jobs that ever joined
    missing_since: int = 0


@dataclass(slots=True)
class ChatRow:
    """A chat with its two lines, its call in flight and its pause."""

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
        """Whether jobs are waiting in its lines, or a call is in flight."""
        return self.sending is not None or self.interactive.length + self.bulk.length > 0

    def line(self, priority: Priority) -> LineRow:
        """The line of a priority."""
        return self.interactive if priority is Priority.INTERACTIVE else self.bulk


@dataclass(slots=True)
class TypingRow:
    """The typing and drafts of a chat: when they were sent, and until when there must be no more."""

    chat: str
    log: Log
    paused_until: int = 0


@dataclass(slots=True)
class SlowedRow:
    """The learned pace of one family of calls in a chat. It matters until ``recovered_at``."""

    chat: str
    family: CallFamily
    permille: int = 1000  # the distance of its calls when it was slowed, in thousandths of the full pace's
    slowed_at: int = 0  # when it began to recover: at the end of the wait
    next_at: int = 0  # its calls go no earlier
    granted_at: int = 0  # when the last one was granted

    @property
    def recovered_at(self) -> int:
        """When it has its full pace again."""
        return policy.recovered_at(self.permille, self.slowed_at)

    def permille_at(self, now: int) -> int:
        """The distance of its calls now, in thousandths of the full pace's."""
        return policy.narrowed_permille(self.permille, self.slowed_at, now)


@dataclass(slots=True)
class EnqueuedRow:
    """The jobs of a chat and priority that were enqueued under a key and that no worker has received, as far as they
    are to be sent. It matters until ``over``."""

    chat: str  # as the jobs name it
    priority: Priority
    key: str
    variant: str
    campaign: str | None
    final: bool  # whether the newest is
    first: str  # the id of a job that stays, however many follow
    newest: str
    over: int
    # The first of the jobs that each of them has superseded.
    first_chain: str | None = None
    newest_chain: str | None = None

    def chain_of(self, job_id: str) -> str | None:
        """The first of the jobs that a job has superseded before a worker received it."""
        if job_id == self.newest:
            return self.newest_chain
        return self.first_chain if job_id == self.first else None


class Alias(NamedTuple):
    """The chat that a chat key stands for: permanently after a migration (``until`` is 0), for a time if it is a
    name."""

    real: str
    until: int


@dataclass(slots=True)
class BotRow:
    """A bot with its budgets, its pause and its circuit."""

    bot: str
    anchor: Anchor
    free: Budget
    paid: Budget
    born: int  # when the bot was first seen by the store; 0: it was vouched for
    granted: int = 0  # when the last send was granted; store time never goes back before it
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
    slowed_until: int = 0  # when all its slowed chats have recovered
    # See ``rebuilding``: the epoch, which only grows, and the writes that the store counts; when the lines began to be
    # rebuilt (0: never); until when, and for how long before, there may have been sends of which the store knows
    # nothing; and how often writes were lost.
    epoch: int = 0
    writes: int = 0
    rebuilt: int = 0
    unknown_until: int = 0
    gap_us: int = 0
    rollbacks: int = 0
    # Used by the store: numbers of waiting jobs, by priority, and of dead ones.
    counts: list[int] = field(default_factory=lambda: [0, 0, 0])

    def budget(self, paid: bool) -> Budget:
        """The budget of paid or of free messages."""
        return self.paid if paid else self.free


class UnitOfWork(Protocol):
    """One bot's part of the store, in one transaction. Saved rows become visible to others when it ends."""

    now: int
    bot: BotRow
    policy: Policy

    def save_bot(self) -> None:
        """Save the bot's row."""
        ...

    def job(self, job_id: str) -> JobRow | None:
        """The row of a job; None if the job is unknown."""
        ...

    def save_job(self, job: JobRow) -> None:
        """Save a job's row, and insert it if it is new."""
        ...

    def drop_job(self, job_id: str) -> None:
        """Forget a job."""
        ...

    def keep_outcome(self, job: JobRow, outcome: str) -> None:
        """Keep the outcome of a job that ends now, for a limited time."""
        ...

    def outcome(self, job: JobRow) -> str | None:
        """The outcome of an ended job, as long as it is kept."""
        ...

    def count_not_kept(self, reason: str) -> None:
        """Count a job that ends now without a dead letter."""
        ...

    def list_not_kept(self, job_id: str, chat: str | None, reason: str) -> None:
        """List a job that ends now without a dead letter."""
        ...

    def typing(self, chat: str) -> TypingRow:
        """The row of a chat's typing; a new one if there is none."""
        ...

    def save_typing(self, row: TypingRow) -> None:
        """Save the row of a chat's typing. It is kept for as long as it matters."""
        ...

    def enqueued(self, chat: str, priority: Priority, key: str) -> EnqueuedRow | None:
        """What was enqueued under a key; None if nothing was, or it no longer matters."""
        ...

    def save_enqueued(self, row: EnqueuedRow) -> None:
        """Save what was enqueued under a key. It is kept for as long as it matters."""
        ...

    def slowed(self, chat: str, family: CallFamily) -> SlowedRow | None:
        """The learned pace of a family in a chat; None if it has its full pace. Asked of a bot with slowed chats
        only."""
        ...

    def save_slowed(self, row: SlowedRow) -> None:
        """Save a learned pace. It is kept until it has recovered."""
        ...

    def drop_slowed(self, row: SlowedRow) -> None:
        """Forget a learned pace."""
        ...

    def cancelled_before(self, campaign: str | None) -> int:
        """The time before which jobs of this campaign were cancelled, in Unix milliseconds; 0 if none were."""
        ...

    def cancel_before(self, campaign: str | None, before_ms: int) -> None:
        """Keep the time before which jobs of the campaign (with None, of the bot) are cancelled."""
        ...

    def count_dropped(self, reason: str, letters: int) -> None:
        """Add to the count of dropped dead letters."""
        ...

    def chat(self, chat: str) -> ChatRow | None:
        """The row of a chat; None if the chat is unknown."""
        ...

    def save_chat(self, chat: ChatRow) -> None:
        """Save a chat's row, and insert it if it is new."""
        ...

    def drop_chat(self, chat: str) -> None:
        """Forget a chat."""
        ...

    def head(self, chat: str, priority: Priority) -> JobRow | None:
        """The first job of a line."""
        ...

    def last_of_key(self, chat: str, priority: Priority, key: str) -> JobRow | None:
        """The last job of a line that waits under a key (see ``State.untouched``). Found by an index of such jobs."""
        ...

    def line(self, chat: str, priority: Priority) -> Sequence[JobRow]:
        """A whole line, in order."""
        ...

    def step_over(self, chat: str, priority: Priority, before: int, due_before: int) -> int:
        """Mark the jobs of a line that are placed before ``before`` and due before ``due_before`` as absent, and return
        their number."""
        ...

    def alias(self, chat: str) -> Alias | None:
        """The chat that a chat key stands for, or used to: a name's alias is kept for a time after it expires."""
        ...

    def save_alias(self, chat: str, alias: Alias) -> None:
        """Save the chat that a chat key stands for."""
        ...

    def move_aliases(self, old_chat: str, new_chat: str) -> None:
        """Make all aliases of the old chat stand for the new one."""
        ...

    def units_ahead(self, job: JobRow, rank: int, asking_since: int) -> int:
        """The units of jobs that wait for the same budget, rank before ``rank`` and were due after ``asking_since``."""
        ...

    def wait_for_bot(self, job: JobRow) -> None:
        """Note that a job waits for its bot's budget."""
        ...

    def stop_waiting(self, job: JobRow) -> None:
        """Note that a job no longer waits for its bot's budget."""
        ...
