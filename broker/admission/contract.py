"""What a state store promises: ``admit`` before each send, ``settle`` after it, ``pause`` when Telegram says so.

Each call is one round trip, atomic over all it touches, on the store's own clock. Times that leave the store are
waits (``timedelta`` from now), so that no caller compares its clock with the store's.
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
    """What admission needs to know of a job. Made from a job by ``policy.ask_for``, a pure function."""

    job_id: str
    bot: str
    chat: str | None
    kind: ChatKind
    priority: Priority
    charge: Charge
    cost: int
    paid: bool
    lease: timedelta
    """For how long the send belongs to this worker. The call is cut off before it ends."""
    calls_left: int
    """How many calls the job may lose with their workers: ``FLOODGATE_MAX_ATTEMPTS`` less the calls that the job counts
    itself, and at least one."""
    content: str | None = None
    """What a job under a dedupe key sends (``Job.content``); the first one's is kept."""


class Scope(StrEnum):
    """What a wait is for. A job that waits for its bot may stay in hand; one that waits for its chat steps aside."""

    BOT = "bot"
    CHAT = "chat"


@dataclass(frozen=True, slots=True)
class Go:
    """Send now. The send is recorded until it is settled or its lease ends."""

    chat: str | None
    """The chat key to send to: another than asked for when the chat has migrated. An ``@name`` stays one."""

    grant: int | None = None
    """Tells this permission from a later one for the same job. ``settle`` takes it, so that a worker whose lease has
    ended cannot undo what another has begun since."""

    probe: bool = False
    """Telegram has not been answering, and this call finds out whether it does again. If it does not either, it costs
    the job no attempt."""

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
    """The job was given up before (its dead letter is written); acknowledge it."""

    reason: str
    content: str | None = None


@dataclass(frozen=True, slots=True)
class Unsettled:
    """A worker began to send this job ``age`` ago and never said what became of it. Its lease is over."""

    age: timedelta


@dataclass(frozen=True, slots=True)
class Unreachable:
    """The chat turned out unreachable and has not been heard from since; Telegram is not asked again. ``why`` is what
    it said then."""

    why: str


@dataclass(frozen=True, slots=True)
class Exhausted:
    """The job never gets as far as being settled. Write its dead letter, then settle it as dead."""

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
    """Telegram accepted the call. ``result`` is Telegram's own JSON value."""

    result: Any
    late: timedelta = timedelta()
    """By how much the call arrived later than calls do, at most. What it spent counts from that much later, so that
    those admitted in the meantime do not fall together with it."""
    error: dict[str, Any] | None = None
    """What Telegram said, if it was that there is nothing to do; then ``result`` is True. As in :class:`Dead`."""


@dataclass(frozen=True, slots=True)
class Retrying:
    """The call failed and will be made again in ``delay``; the job keeps the head of its line until then.

    ``charged`` is False when the call surely never reached Telegram, so its budget is given back.
    """

    delay: timedelta
    charged: bool = True
    unanswered: bool = False
    """No word from Telegram: 5xx, time-out, refused, reset, no name. Several chats' worth of it is an outage."""


@dataclass(frozen=True, slots=True)
class Dead:
    """The job will not be sent. It leaves its line; the next one may go."""

    reason: str
    error: dict[str, Any] | None = None
    """What Telegram said, if it was Telegram that said no: ``error_code``, ``description``, perhaps ``parameters``."""
    unanswered: bool = False
    """The call that ended it got no word from Telegram. As in :class:`Retrying`."""
    kept: bool = True
    """Whether there is a dead letter. Without one the store counts and lists the job: see :class:`NotKept`."""
    description: str = ""
    """A sentence for the dead letter and the log, at most 500 characters. The ledger does not keep it."""


@dataclass(frozen=True, slots=True)
class Released:
    """The send was not begun after all (shutdown, store or network fault before the call). Budget given back.

    It counts as no call. A job that is released again and again with no call in between is ``Exhausted`` in the end.
    """


Settlement = Sent | Retrying | Dead | Released


CANCELLED: Final = "cancelled"
"""The reason of a job that its caller took back."""


class Standing(StrEnum):
    """Where a job stands in the ledger."""

    WAITING = "waiting"
    SENDING = "sending"
    SENT = "sent"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class Record:
    """What the ledger says of a job. ``result`` is Telegram's, of a sent job; ``reason`` is that of a dead one;
    ``error`` is what Telegram said to it, or to one that had nothing to do, if it did; ``due`` is how long a waiting
    one waits yet, by all that is known. ``result`` and ``error`` are None once they are no longer kept, after
    ``FLOODGATE_RESULT_SECONDS``."""

    standing: Standing
    result: Any = None
    reason: str | None = None
    error: dict[str, Any] | None = None
    due: timedelta | None = None
    content: str | None = None
    """Of a job with a dedupe key, what was sent under it: see ``Job.content``."""


@dataclass(frozen=True, slots=True)
class Pause:
    """A pause in force: nobody sends to the scope before it ends."""

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
    """A chat that Telegram refused for good ``age`` ago, and what it said, as in "Forbidden: bot was blocked by the
    user"."""

    chat: str
    why: str
    age: timedelta


@dataclass(frozen=True, slots=True)
class NotKept:
    """A job that ended ``age`` ago and has no dead letter, with the chat that it was for."""

    job_id: str
    chat: str | None
    reason: str
    age: timedelta


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What ``floodgate status`` shows of one bot."""

    bot: str
    sent_last_second: int
    """Units admitted in the last second, paid ones left out."""
    per_second_limit: float
    """The working rate now, less than the configured one for a while after a 429."""
    sent_last_minute: int
    sending: int
    waiting: dict[Priority, int]
    pauses: tuple[Pause, ...]
    longest_lines: tuple[Line, ...]
    """Those of more than one job."""
    dead: int
    unreachable: int
    not_kept: Mapping[str, int]
    """Jobs that ended without a dead letter, by reason, since the store was new."""
    dropped: Mapping[str, int]
    """Dead letters that were dropped, by reason, since the store was new: their time was over, or there were too many.
    Not those that an operator dropped."""
    outage: timedelta | None = None
    """For how long Telegram has not answered; None while it does."""


class Admission(Protocol):
    """The contract. Any method raises ``StateUnavailableError`` when the store cannot answer; nothing is sent then."""

    def admit(self, ask: Ask) -> Decision:
        """May this job be sent now? Idempotent by job id. At first sight the job joins its line."""
        ...

    def renew_unsettled(self, ask: Ask) -> Decision:
        """``admit`` for a job that was ``Unsettled`` and shall be sent again: forgets the first send, then decides.

        The lost call stays counted: after ``calls_left`` of them the job is ``Exhausted``.
        """
        ...

    def settle(self, ask: Ask, settlement: Settlement, grant: int | None = None) -> None:
        """Say what became of an admitted job. Idempotent; a second, different settlement of an ended job is ignored.

        With the ``grant`` of its ``Go``, a settlement that would put the job back is ignored once another worker has
        been admitted for it. A job that was never admitted may be settled too (it expired, say).

        With a ``grant`` it also tells whether Telegram answers. When calls of several chats got no answer the bot makes
        one call at a time, at growing intervals, until one is answered; all else waits, for ``outage``.
        """
        ...

    def cancel(self, ask: Ask) -> Record:
        """End a job as dead, for :data:`CANCELLED`, unless it has ended or may have been sent; its record after that.

        A job never asked for may be cancelled too: it is dropped when it comes.
        """
        ...

    def lookup(self, bot: str, job_id: str) -> Record | None:
        """What the ledger says of a job; None for one that has not been asked for yet or is forgotten."""
        ...

    def reopen(self, bot: str, job_id: str) -> Record | None:
        """:meth:`lookup`, after which a dead job is forgotten: if its message comes again it is a new one."""
        ...

    def mark_unreachable(self, bot: str, chat: str, why: str) -> None:
        """Telegram refused the chat for good. Until it is heard from, jobs that need it are ``Unreachable``.

        That is forgotten after ``FLOODGATE_UNREACHABLE_SECONDS``, and when a message reaches the chat all the same:
        an interactive job is let through once a minute, for a person who waits has probably come back.
        """
        ...

    def heard_from(self, bot: str, chat: str) -> bool:
        """An update came from the chat, or an operator says that it is reachable; whether it was held for not so."""
        ...

    def unreachable(self, bot: str, limit: int = 1000, offset: int = 0) -> Sequence[UnreachableChat]:
        """Chats held for unreachable, each once, the latest first: so many, after the first ``offset``."""
        ...

    def not_kept(self, bot: str, limit: int = 1000, offset: int = 0) -> Sequence[NotKept]:
        """Jobs that ended without a dead letter, the latest first: so many, after the first ``offset``.

        Listed are the latest ``FLOODGATE_DEAD_LETTERS__LISTED``, each for as long as its dead letter would be kept.
        """
        ...

    def count_dropped(self, bot: str, reason: str, letters: int) -> None:
        """Count dead letters that are dropped now."""
        ...

    def pause(self, bot: str, chat: str | None, duration: timedelta, why: str) -> None:
        """Nobody sends to the chat (or, with None, for the bot) for this long. Extends, never shortens, a pause."""
        ...

    def too_many_requests(self, bot: str, chat: str | None, retry_after: timedelta) -> Scope:
        """Telegram answered 429. Pauses the chat, or the bot where ``policy.blames_bot``; says which."""
        ...

    def resume(self, bot: str, chat: str | None) -> None:
        """End a pause now. Without a chat it also ends an outage, until calls fail again."""
        ...

    def migrate(self, bot: str, old_chat: str, new_chat: str) -> None:
        """The chat has a new id: its line, budget and pause move to it, and jobs for the old id are sent to it.

        Also for an ``@name`` whose id a send has told. Jobs for the name then share the id's line and budget, and are
        still sent to the name, which may pass to another chat. Confirm it after each such send: an hour after the last
        confirmation the name is a chat of its own again.
        """
        ...

    def vouch_idle(self, bot: str) -> None:
        """Say that a bot unknown to the store has sent nothing in the last minute, so that it may start at full rate.

        Without it a bot starts cautiously, for a store may be new because the old one was lost.
        """
        ...

    def waiting(self, bot: str) -> Mapping[Priority, int]:
        """How many jobs wait in the bot's lines. Costs the same however many there are."""
        ...

    def snapshot(self, bot: str) -> Snapshot:
        """What ``floodgate status`` shows of a bot."""
        ...

    def close(self) -> None:
        """Release files and sockets. Safe to call twice."""
        ...
