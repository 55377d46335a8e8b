"""The contract of a state store: ``admit`` before each send, ``settle`` after it, ``pause`` when Telegram demands it.

Each call is one atomic round trip, on the store's own clock. Times that leave the store are durations from now
(``timedelta``), so that no caller compares its clock with the store's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any, Final, Protocol

from floodgate.broker.messages.chats import ChatKind
from floodgate.broker.messages.job import Priority
from floodgate.broker.messages.methods import Charge


@dataclass(frozen=True, slots=True)
class Ask:
    """The facts about a job that admission needs. Created by ``policy.ask_for``, a pure function."""

    job_id: str
    bot: str
    chat: str | None
    kind: ChatKind
    priority: Priority
    charge: Charge
    cost: int
    paid: bool
    lease: timedelta
    """How long the send belongs to this worker. The call is cut off before the lease ends."""
    calls_left: int
    """How many calls the job may lose to dying workers: ``FLOODGATE_MAX_ATTEMPTS`` minus the calls that the job counts
    itself, and at least one."""
    content: str | None = None
    """``Job.content`` of a job with a dedupe key. The ledger keeps the first job's."""


class Scope(StrEnum):
    """The scope of a wait. A job that waits for its bot may be held; one that waits for its chat is parked."""

    BOT = "bot"
    CHAT = "chat"


@dataclass(frozen=True, slots=True)
class Go:
    """The permit: send now. The send is recorded until it is settled or its lease ends."""

    chat: str | None
    """The chat key to send to: the new one if the chat has migrated. An ``@name`` stays a name."""

    grant: int | None = None
    """Distinguishes this permit from a later one for the same job. It is passed to ``settle``, so that a worker whose
    lease has ended cannot undo another worker's send."""

    probe: bool = False
    """Telegram has not been answering, and this call tests whether it does again. If not, the call does not count as an
    attempt of the job."""

    decided_at: float = field(default=0.0, compare=False)
    """When this was decided, or shortly before, in ``time.monotonic()`` of the process that asked."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Not yet: ask again in ``delay``. ``why`` is a word for logs and status (`rate`, `line`, `pause`, `in-flight`,
    `outage`)."""

    delay: timedelta
    scope: Scope
    why: str


@dataclass(frozen=True, slots=True)
class AlreadySent:
    """The job was sent before; acknowledge it and do not send it. ``result`` is None once it is no longer kept."""

    result: Any
    content: str | None = None


@dataclass(frozen=True, slots=True)
class AlreadyDead:
    """The job has ended as dead (its dead letter is written); acknowledge it."""

    reason: str
    content: str | None = None


@dataclass(frozen=True, slots=True)
class Unsettled:
    """A worker began to send this job ``age`` ago and never settled it. The lease has ended."""

    age: timedelta


@dataclass(frozen=True, slots=True)
class Unreachable:
    """The chat was unreachable and no update has come from it since, so Telegram is not asked again. ``why`` is
    Telegram's description."""

    why: str


@dataclass(frozen=True, slots=True)
class Exhausted:
    """The job has lost too many workers or was handed back too often. Write its dead letter, then settle it."""

    lost: int
    """Calls that workers began and never settled: they died during the call."""
    handed_back: int
    """How many times in a row it was handed back before its call (see :class:`Released`)."""

    @property
    def why(self) -> str:
        """The bound that was reached, for the dead letter."""
        lost = f"{self.lost} workers ended during a call for it; Telegram may have sent it"
        handed_back = f"it was handed back {self.handed_back} times in a row before its call"
        return "; ".join(text for count, text in ((self.lost, lost), (self.handed_back, handed_back)) if count)


Decision = Go | Wait | AlreadySent | AlreadyDead | Unsettled | Unreachable | Exhausted


@dataclass(frozen=True, slots=True)
class Sent:
    """Telegram accepted the call. ``result`` is Telegram's JSON value."""

    result: Any
    late: timedelta = timedelta()
    """The upper bound of the call's arrival delay. Its units count from that much later, so that sends admitted in
    between do not exceed a window together with it."""
    error: dict[str, Any] | None = None
    """Telegram's error if it said that there is nothing to do; then ``result`` is True. As in :class:`Dead`."""


@dataclass(frozen=True, slots=True)
class Retrying:
    """The call failed and will be repeated after ``delay``; until then the job stays at the head of its line.

    ``charged`` is False if the call certainly never reached Telegram, so its budget is refunded.
    """

    delay: timedelta
    charged: bool = True
    unanswered: bool = False
    """Telegram did not answer: 5xx, time-out, connection refused or reset, unresolved name. If that happens to several
    chats it is an outage."""


@dataclass(frozen=True, slots=True)
class Dead:
    """The job will not be sent. It leaves its line; the next one may go."""

    reason: str
    error: dict[str, Any] | None = None
    """Telegram's answer, if Telegram refused the job: ``error_code``, ``description``, perhaps ``parameters``."""
    unanswered: bool = False
    """Telegram did not answer the last call. As in :class:`Retrying`."""
    kept: bool = True
    """Whether there is a dead letter. Without one the store counts and lists the job: see :class:`NotKept`."""
    description: str = ""
    """A sentence for the dead letter and the log, at most 500 characters. Not stored in the ledger."""


@dataclass(frozen=True, slots=True)
class Released:
    """The call was not made after all (shutdown, or a store or network fault before it). Its budget is refunded.

    It does not count as a call. A job that is released again and again without a call is finally ``Exhausted``.
    """


Settlement = Sent | Retrying | Dead | Released


CANCELLED: Final = "cancelled"
"""The reason of a job that its caller cancelled."""


class Standing(StrEnum):
    """Where a job stands in the ledger."""

    WAITING = "waiting"
    SENDING = "sending"
    SENT = "sent"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class Record:
    """The ledger's record of a job. ``result`` is Telegram's result for a sent job; ``reason`` is why a job is dead;
    ``error`` is Telegram's error, if any, for a dead job or one that had nothing to do; ``due`` is how long
    a waiting job still waits, as far as is known. ``result`` and ``error`` are None after
    ``FLOODGATE_RESULT_SECONDS``."""

    standing: Standing
    result: Any = None
    reason: str | None = None
    error: dict[str, Any] | None = None
    due: timedelta | None = None
    content: str | None = None
    """``Job.content`` of a job with a dedupe key."""


@dataclass(frozen=True, slots=True)
class Pause:
    """A pause in force: nothing is sent to the chat, or for the bot if ``chat`` is None, until it ends."""

    chat: str | None
    remaining: timedelta
    why: str


@dataclass(frozen=True, slots=True)
class Line:
    """A waiting line: its chat, priority and length in jobs."""

    chat: str
    priority: Priority
    length: int


@dataclass(frozen=True, slots=True)
class UnreachableChat:
    """A chat that Telegram refused permanently ``age`` ago, with its description: "Forbidden: bot was blocked by
    the user"."""

    chat: str
    why: str
    age: timedelta


@dataclass(frozen=True, slots=True)
class NotKept:
    """A job that ended ``age`` ago without a dead letter, with its chat."""

    job_id: str
    chat: str | None
    reason: str
    age: timedelta


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of one bot that ``floodgate status`` shows."""

    bot: str
    sent_last_second: int
    """Units admitted in the last second, without paid ones."""
    per_second_limit: float
    """The current rate, which is below the configured one for some time after a 429."""
    sent_last_minute: int
    sending: int
    waiting: dict[Priority, int]
    pauses: tuple[Pause, ...]
    longest_lines: tuple[Line, ...]
    """The longest lines of more than one job."""
    dead: int
    unreachable: int
    not_kept: Mapping[str, int]
    """Jobs that ended without a dead letter, by reason, since the store was created."""
    dropped: Mapping[str, int]
    """Dead letters dropped because of their age or number, by reason, since the store was created. Not those that an
    operator dropped."""
    outage: timedelta | None = None
    """How long Telegram has not answered; None if it does."""


class Admission(Protocol):
    """The contract. Any method raises ``StateUnavailableError`` if the store cannot answer; then nothing is sent."""

    def admit(self, ask: Ask) -> Decision:
        """Decide whether this job may be sent now. Idempotent by job id. The first time, the job joins its line."""
        ...

    def renew_unsettled(self, ask: Ask) -> Decision:
        """Forget the send of an ``Unsettled`` job that is to be sent again, then do the same as ``admit``.

        The lost call still counts: after ``calls_left`` of them the job is ``Exhausted``.
        """
        ...

    def settle(self, ask: Ask, settlement: Settlement, grant: int | None = None) -> None:
        """Record the outcome of an admitted job. Idempotent; a second, different settlement of an ended job is ignored.

        With the ``grant`` of its ``Go``, a settlement that would put the job back is ignored once another worker has
        been admitted for it. A job that was never admitted may be settled too, for example when it has expired.

        With a ``grant`` it also shows whether Telegram answers. When calls for several chats got no answer, the bot
        makes one call at a time, at growing intervals, until one is answered; all other jobs wait, for ``outage``.
        """
        ...

    def cancel(self, ask: Ask) -> Record:
        """End a job as dead, with :data:`CANCELLED`, unless it has ended or may have been sent. Return its record.

        A job that has not reached admission may be cancelled too: it is dropped when it arrives.
        """
        ...

    def lookup(self, bot: str, job_id: str) -> Record | None:
        """Return the ledger's record of a job; None if the job has not reached admission or is forgotten."""
        ...

    def reopen(self, bot: str, job_id: str) -> Record | None:
        """Return the ledger's record of a job, then forget it if it is dead, so that its message can be sent again."""
        ...

    def mark_unreachable(self, bot: str, chat: str, why: str) -> None:
        """Record that Telegram refused the chat permanently. Jobs that need it are then ``Unreachable``.

        This ends when an update comes from the chat, after ``FLOODGATE_UNREACHABLE_SECONDS``, or when a message reaches
        the chat: one interactive job per minute is let through, since a waiting person has probably come back.
        """
        ...

    def heard_from(self, bot: str, chat: str) -> bool:
        """Record that an update came from the chat, or that an operator knows it to be reachable. Return whether it was
        considered unreachable."""
        ...

    def unreachable(self, bot: str, limit: int = 1000, offset: int = 0) -> Sequence[UnreachableChat]:
        """Return up to ``limit`` unreachable chats, the latest first, skipping the first ``offset``."""
        ...

    def not_kept(self, bot: str, limit: int = 1000, offset: int = 0) -> Sequence[NotKept]:
        """Return up to ``limit`` jobs that ended without a dead letter, the latest first, after the first ``offset``.

        The latest ``FLOODGATE_DEAD_LETTERS__LISTED`` are listed, each for as long as its dead letter would be kept.
        """
        ...

    def count_dropped(self, bot: str, reason: str, letters: int) -> None:
        """Count dead letters that are being dropped."""
        ...

    def pause(self, bot: str, chat: str | None, duration: timedelta, why: str) -> None:
        """Pause the chat (or, with None, the bot) for this long. Extends, but never shortens, an existing pause."""
        ...

    def too_many_requests(self, bot: str, chat: str | None, retry_after: timedelta) -> Scope:
        """Record a 429 from Telegram. Pause the chat, or the bot if ``policy.blames_bot``, and return which."""
        ...

    def resume(self, bot: str, chat: str | None) -> None:
        """End a pause now. Without a chat it also ends an outage, until calls fail again."""
        ...

    def migrate(self, bot: str, old_chat: str, new_chat: str) -> None:
        """Move a chat's line, budget and pause to its new id; jobs for the old id are sent to the new one.

        Also called for an ``@name`` whose id a send has revealed. Its jobs then share the id's line and budget,
        but are still sent to the name, which may pass to another chat. It must be confirmed after each such send: an
        hour after the last confirmation the name counts as a separate chat again.
        """
        ...

    def vouch_idle(self, bot: str) -> None:
        """Declare that a bot unknown to the store has sent nothing in the last minute, so it may start at full rate.

        Otherwise a new bot starts cautiously, since the store may be new because the old one was lost.
        """
        ...

    def waiting(self, bot: str) -> Mapping[Priority, int]:
        """Return how many jobs wait in the bot's lines. Takes the same time however many there are."""
        ...

    def snapshot(self, bot: str) -> Snapshot:
        """Return the state of a bot that ``floodgate status`` shows."""
        ...

    def close(self) -> None:
        """Release files and sockets. Safe to call twice."""
        ...
