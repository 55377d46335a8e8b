"""The contract of state stores: ``admit`` before each send, ``settle`` after it, ``pause`` when Telegram asks for it.

Each call is one round trip, atomic, and uses the store's own clock. Times that leave the store are relative
(``timedelta`` from now), so that no caller compares its clock with the store's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any, Final, Protocol

from floodgate.broker.messages.chats import ChatKind
from floodgate.broker.messages.job import Priority
from floodgate.broker.messages.method_table import Charge


@dataclass(frozen=True, slots=True)
class Ask:
    """The facts about a job that admission needs. ``policy.ask_for`` derives them from a job."""

    job_id: str
    bot: str
    chat: str | None
    kind: ChatKind
    priority: Priority
    charge: Charge
    cost: int
    paid: bool
    lease: timedelta
    """How long the call belongs to this worker. The call times out before the lease ends."""
    calls_left: int
    """How many more calls may be lost with their workers: ``FLOODGATE_MAX_ATTEMPTS`` less the attempts that the job
    itself has counted, and at least one."""
    content: str | None = None
    """The content of a job with a dedupe key (``Job.content``); the store keeps that of the first."""
    upload: bool = False
    """Whether the call uploads files. It arrives when they have, so it counts for its chat from the end of the call."""
    campaign: str | None = None
    worth: timedelta | None = None
    """For how much longer the job is worth sending. One that would have to wait for longer is shed. None: always."""
    created_ms: int = 0
    """When the job was enqueued, in Unix milliseconds of its producer's clock."""
    coalesce: str | None = None
    """Of the jobs of a chat and priority with the same key, the newest supersedes the one that waits."""
    variant: str = ""
    """A job supersedes only one of the same variant. If the last that waits under its key is of another, it joins the
    end of the line."""
    final: bool = False
    """Whether no later job supersedes it."""


class CallFamily(StrEnum):
    """The calls of a chat that a 429 for one of them slows down together."""

    MESSAGES = "messages"
    EDITS = "edits"
    TYPING = "typing"  # and drafts
    OTHER = "other"  # draws on no budget of the chat, so there is no pace to slow down


class Scope(StrEnum):
    """Whether a wait concerns the whole bot or one chat. A job that waits for its bot may stay in the worker; one that
    waits for its chat makes way for others."""

    BOT = "bot"
    CHAT = "chat"


@dataclass(frozen=True, slots=True)
class Go:
    """A permit: send now. The call is recorded until it is settled or its lease ends."""

    chat: str | None
    """The chat key to send to. It differs from the requested one if the chat has migrated; an ``@name`` is kept."""

    grant: int | None = None
    """Distinguishes this permit from a later one for the same job. It is passed to ``settle``, so that a worker whose
    lease has ended cannot undo a call that another worker has begun since."""

    probe: bool = False
    """Whether this call probes a Telegram that has stopped answering. An unanswered probe costs the job no attempt."""

    decided_at: float = field(default=0.0, compare=False)
    """When this was decided (or shortly before), in ``time.monotonic()`` of the process that asked."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Not yet: ask again in ``delay``. ``why`` is a keyword for logs and status: `rate`, `line`, `pause`, `in-flight`
    or `outage`."""

    delay: timedelta
    scope: Scope
    why: str


@dataclass(frozen=True, slots=True)
class AlreadySent:
    """The job has already been sent: acknowledge it. ``result`` is None once it is no longer kept."""

    result: Any
    content: str | None = None


@dataclass(frozen=True, slots=True)
class AlreadyDead:
    """The job is already dead and its dead letter is written: acknowledge it."""

    reason: str
    content: str | None = None


@dataclass(frozen=True, slots=True)
class Unsettled:
    """A worker began a call for this job ``age`` ago and never settled it. Its lease has ended."""

    age: timedelta


@dataclass(frozen=True, slots=True)
class Unreachable:
    """Telegram has refused the chat and no update has come from it since; Telegram is not asked again. ``why`` is the
    description in Telegram's error."""

    why: str


@dataclass(frozen=True, slots=True)
class Exhausted:
    """The job keeps failing to be settled. Write its dead letter, then settle it as dead."""

    lost: int
    """Calls whose workers died before they settled them."""
    handed_back: int
    """How many times in a row the permit was handed back before the call (see :class:`Released`)."""

    @property
    def why(self) -> str:
        """The limit that was reached, for the dead letter."""
        lost = f"{self.lost} workers ended during a call for it; Telegram may have sent it"
        handed_back = f"it was handed back {self.handed_back} times in a row before its call"
        return "; ".join(text for count, text in ((self.lost, lost), (self.handed_back, handed_back)) if count)


Decision = Go | Wait | AlreadySent | AlreadyDead | Unsettled | Unreachable | Exhausted


@dataclass(frozen=True, slots=True)
class Sent:
    """Telegram accepted the call. ``result`` is Telegram's JSON value."""

    result: Any
    late: timedelta = timedelta()
    """An upper bound on the call's arrival delay beyond the usual; zero for an upload. Its units are moved this much
    later in its chat's budget, and up to a bound in its bot's, so that calls admitted in the meantime do not arrive
    together with it."""
    error: dict[str, Any] | None = None
    """Telegram's error, if it said that there was nothing to do; ``result`` is True then. As in :class:`Dead`."""


@dataclass(frozen=True, slots=True)
class Retrying:
    """The call failed and will be repeated in ``delay``; until then the job stays at the head of its line.

    ``charged`` is False if the call certainly never reached Telegram; its budget is then refunded.
    """

    delay: timedelta
    charged: bool = True
    unanswered: bool = False
    """Telegram did not answer: 5xx, timeout, connection refused or reset, DNS failure. If that happens to several
    chats, it is an outage."""


@dataclass(frozen=True, slots=True)
class Dead:
    """The job will not be sent. It leaves its line; the next one may go."""

    reason: str
    error: dict[str, Any] | None = None
    """Telegram's error, if Telegram refused the call: ``error_code``, ``description``, perhaps ``parameters``."""
    unanswered: bool = False
    """Telegram did not answer the last call. As in :class:`Retrying`."""
    kept: bool = True
    """Whether there is a dead letter. Without one the store counts and lists the job: see :class:`NotKept`."""
    description: str = ""
    """A sentence for the dead letter and the log, at most 500 characters. Not stored in the ledger."""


@dataclass(frozen=True, slots=True)
class Released:
    """The call was not made after all (shutdown, or a store or network fault before it). Its budget is refunded.

    This does not count as a call. A job released too many times in a row becomes ``Exhausted``.
    """


Settlement = Sent | Retrying | Dead | Released


CANCELLED: Final = "cancelled"
"""The reason of a job that its caller cancelled."""


SHED: Final = "shed"
"""The reason of a job that ended because it would have been sent too late to be worth it. It is counted, not listed."""


SUPERSEDED: Final = "superseded"
"""The reason of a job whose place a newer job with the same key has taken. It is counted, not listed."""


class Standing(StrEnum):
    """Where a job stands in the ledger."""

    WAITING = "waiting"
    SENDING = "sending"
    SENT = "sent"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class Record:
    """The ledger's record of a job. ``result`` and ``error`` are None once ``FLOODGATE_RESULT_SECONDS`` have passed."""

    standing: Standing
    result: Any = None
    """Telegram's result of a sent job."""
    reason: str | None = None
    """Why a job is dead."""
    error: dict[str, Any] | None = None
    """Telegram's error for a dead job, or for a sent one for which there was nothing to do."""
    due: timedelta | None = None
    """How much longer a waiting job has to wait, as far as is known."""
    content: str | None = None
    """The content of a job with a dedupe key: see ``Job.content``."""
    chain: str | None = None
    """For a superseded job, the id of the first job that held the place: its end is reported together with that of the
    job that goes. The record is otherwise that of the job that holds the place now, or went."""


FLOOD_WAIT: Final = "429"
"""Why a chat or a bot is paused after Telegram's answer 429."""


@dataclass(frozen=True, slots=True)
class Pause:
    """A pause in force: nothing is sent to the chat (or, if None, for the bot) until it ends."""

    chat: str | None
    remaining: timedelta
    why: str


@dataclass(frozen=True, slots=True)
class SlowedChat:
    """The learned pace of one family of calls in a chat, after answers 429."""

    chat: str
    family: CallFamily
    interval: timedelta
    """The distance that its calls keep now. An album of n keeps n times as much after it."""
    next_call: timedelta
    """Until the next call may be made, as far as this pace is concerned."""
    recovery: timedelta
    """Until it has its full pace again, if no other 429 comes."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of waiting jobs: its chat, its priority and its length in jobs."""

    chat: str
    priority: Priority
    length: int


@dataclass(frozen=True, slots=True)
class UnreachableChat:
    """A chat that Telegram refused permanently ``age`` ago. ``why`` is its description, such as "Forbidden: bot was
    blocked by the user"."""

    chat: str
    why: str
    age: timedelta


@dataclass(frozen=True, slots=True)
class NotKept:
    """A job that ended ``age`` ago without a dead letter, and its chat."""

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
    """The current rate limit, which is lower than the configured one for a while after a 429."""
    sent_last_minute: int
    sending: int
    waiting: dict[Priority, int]
    pauses: tuple[Pause, ...]
    longest_lines: tuple[Line, ...]
    """Lines of more than one job."""
    dead: int
    unreachable: int
    not_kept: Mapping[str, int]
    """Jobs that ended without a dead letter, by reason, since the store was created."""
    dropped: Mapping[str, int]
    """Dead letters that were dropped because they had expired or were too many, by reason, since the store was created.
    Letters that an operator dropped do not count."""
    outage: timedelta | None = None
    """How long Telegram has not been answering; None while it answers."""
    oldest: Mapping[Priority, timedelta] = field(default_factory=dict)
    """How long ago the oldest job that waits in a line joined it, by priority; nothing for a priority without one.
    Reads and answers to queries join no line."""
    slowed: tuple[SlowedChat, ...] = ()
    """Learned paces of chats, the slowest to recover first; as many as of lines and pauses."""
    slowed_chats: Mapping[CallFamily, int] = field(default_factory=dict)
    """How many chats are slowed, by family; nothing for a family without one."""
    rollbacks: int = 0
    """How often the store was found to have gone back in time: a lagging replica was promoted, an older file restored,
    or the last writes lost in a crash."""
    rolled_back: timedelta | None = None
    """How long ago that was last found; None: never."""


@dataclass(frozen=True, slots=True)
class CallUnderWay:
    """A call under way in a chat. Nothing else is sent there until it ends, or its ``lease_left`` is over."""

    job_id: str
    age: timedelta
    lease_left: timedelta


@dataclass(frozen=True, slots=True)
class ChatLine:
    """The jobs of one priority that wait in a chat."""

    priority: Priority
    length: int
    units: int
    """Units of its jobs. Counts those of jobs that have left the middle of the line (they were cancelled)."""
    head: str
    """The id of its first job."""
    age: timedelta
    """How long ago the head joined the line."""
    due: timedelta
    """Until the head asks again, as far as is known; zero while its worker has it."""
    missing: timedelta | None
    """How long the head has not asked although it was due; None if it is not known to be missing. It is stepped over
    after ``policy.MISSING_GRACE_US``."""
    first: timedelta | None
    """Expected time until the head is sent; None if that cannot be foreseen: Telegram does not answer, or the chat is
    unreachable."""
    last: timedelta | None
    """The same of the last job."""


@dataclass(frozen=True, slots=True)
class JobPlace:
    """Where one job stands. Of a job that does not wait in a line of this chat, only ``standing`` is known."""

    job_id: str
    standing: Standing | None
    """None: the store does not know the job."""
    priority: Priority | None = None
    units_ahead: int | None = None
    """Units of the jobs before it in its line, counted as ``ChatLine.units`` is."""
    expected: timedelta | None = None
    """Expected time until it is sent, as for :class:`ChatLine`."""


@dataclass(frozen=True, slots=True)
class ChatExplanation:
    """Why a chat waits, and for how long.

    Expected times assume that no job joins, that no pause is extended, that the call in flight ends now, that
    interactive jobs go first but for a turn of bulk after every ``policy.INTERACTIVE_TURNS``, and that of the bot's
    other chats only those jobs compete that wait for the bot in a worker now.
    """

    bot: str
    chat: str
    """The chat that was asked about, or the one that it stands for: after a migration, or for an ``@name``."""
    known: bool
    """Whether the store knows the chat. It forgets an idle chat after ten minutes."""
    why: str | None
    """The keyword of the first cause, as in :class:`Wait`, or `unreachable`; None if a job could be sent now."""
    scope: Scope | None
    """Whether that cause concerns the whole bot or the chat; None if there is none."""
    pause: Pause | None
    """The chat's own pause."""
    bot_pause: Pause | None
    outage: timedelta | None
    """How long Telegram has not been answering the bot."""
    unreachable: UnreachableChat | None
    call: CallUnderWay | None
    chat_free: timedelta
    """Until the chat's limits, its rest after a slow call and its pause admit a unit."""
    bot_free: timedelta
    """Until the bot's rate and its pause admit a unit."""
    lines: tuple[ChatLine, ...]
    """Its lines that are not empty, interactive first."""
    slowed: tuple[SlowedChat, ...] = ()
    """Its learned paces. If one of them holds up the first job, ``why`` is `rate`."""
    job: JobPlace | None = None
    """The job that was asked about."""


class Admission(Protocol):
    """The contract of a state store.

    Any method raises ``StateUnavailableError`` if the store is unavailable; nothing is sent then.
    """

    def admit(self, ask: Ask) -> Decision:
        """Decide whether a job may be sent now. Idempotent by job id. On the first call the job joins its line.

        A job whose wait is not worth it (``Ask.worth``) ends as dead with the reason :data:`SHED`. So does typing or a
        draft that would have to wait at all: it joins no line and leaves no record before it ends, so nothing waits
        for it, and its permit has no ``grant``.

        A new job with a key (``Ask.coalesce``) takes the place of the last job of its line that waits under the same
        key, unless that one is final or of another variant. The older job ends as dead with the reason
        :data:`SUPERSEDED`, whatever became of earlier calls for it: repeating them would show no less. A job that is
        being sent, or whose worker was lost, is not superseded. If the older one waits for the repetition of a failed
        call, the newer one waits for that long, too.
        """
        ...

    def enqueued(self, bot: str, asks: Sequence[Ask]) -> None:
        """Record jobs with a key that RabbitMQ has just confirmed, at most ``policy.ENQUEUED_MOST``, in their order.

        A worker compares only what it has received, and while the bot's limit is used up it receives little. So of the
        jobs that were enqueued under one key and that no worker has received, all but the first and the newest end here
        as :data:`SUPERSEDED`: the newest supersedes the one before it. The first one stays, so that something is sent
        however fast others follow. Only jobs of the same variant and campaign count.

        This is an optimisation: a job that was never recorded is sent, or superseded in its line. Records are kept for
        ``policy.ENQUEUED_US``. Pass only jobs for which ``policy.may_supersede_unseen`` is true.
        """
        ...

    def renew_unsettled(self, ask: Ask) -> Decision:
        """:meth:`admit` a job that was ``Unsettled`` and is to be sent again: forgets the lost call, then decides.

        The lost call still counts: after ``calls_left`` of them the job is ``Exhausted``.
        """
        ...

    def settle(self, ask: Ask, settlement: Settlement, grant: int | None = None) -> None:
        """Record how an admitted job fared. Idempotent; a second, different settlement of an ended job is ignored.

        Given the ``grant`` of its ``Go``, a settlement that would put the job back is ignored once another worker has
        been admitted for it. A job that was never admitted may be settled too, for example because it expired.

        A settlement with a ``grant`` also shows whether Telegram answers. Once calls to several chats have gone
        unanswered, the bot makes one call at a time, at growing intervals, until one is answered; all other jobs
        ``Wait``, for the reason `outage`.
        """
        ...

    def cancel(self, ask: Ask, listed: bool = True) -> Record:
        """End a job as dead with the reason :data:`CANCELLED`, unless it has ended or may have been sent. Returns its
        record afterwards.

        A job unknown to the store can be cancelled too: it is dropped when it arrives. A cancelled job is counted and
        listed as :class:`NotKept` unless ``listed`` is false, because the caller accounts for it.
        """
        ...

    def cancel_campaign(self, bot: str, campaign: str | None, before_ms: int) -> None:
        """Cancel all jobs of a campaign (or, with None, of the bot) that were enqueued before a time, in Unix
        milliseconds. Takes constant time, however many jobs there are: it writes one record.

        ``admit`` ends each such job with the reason :data:`CANCELLED`, wherever it has been waiting, and counts and
        lists it as :class:`NotKept`. A call under way is not interrupted. The record outlives every scheduled job; the
        latest ``policy.CANCELLED_MOST`` of a bot are kept.
        """
        ...

    def lookup(self, bot: str, job_id: str) -> Record | None:
        """The ledger's record of a job; None if it has not been seen yet or has been forgotten.

        For a superseded job it is that of the job that took its place, found in three steps however many there were,
        for as long as the ledger keeps the first of them. It is waiting if no worker has received it yet.
        """
        ...

    def reopen(self, bot: str, job_id: str) -> Record | None:
        """:meth:`lookup` a job and forget it if it is dead, so that its message can be sent again as a new job. One
        that was superseded is not forgotten."""
        ...

    def mark_unreachable(self, bot: str, chat: str, why: str) -> None:
        """Record that Telegram refused the chat permanently. Until an update comes from it, its jobs are
        ``Unreachable``.

        This is forgotten after ``FLOODGATE_UNREACHABLE_SECONDS``, or when a message does reach the chat: one
        interactive job a minute is admitted, because a person who is waiting for an answer has probably come back.
        """
        ...

    def heard_from(self, bot: str, chat: str) -> bool:
        """Record that the chat is reachable: an update came from it, or an operator says so. Returns whether it was
        marked unreachable."""
        ...

    def unreachable(self, bot: str, limit: int = 1000, offset: int = 0) -> Sequence[UnreachableChat]:
        """Chats marked unreachable, each once, latest first: at most ``limit``, after the first ``offset``."""
        ...

    def unreachable_among(self, bot: str, chats: Sequence[str]) -> Sequence[str]:
        """Those of up to 1,000 chats that are marked unreachable, by the keys that are given."""
        ...

    def not_kept(self, bot: str, limit: int = 1000, offset: int = 0) -> Sequence[NotKept]:
        """Jobs that ended without a dead letter, latest first: at most ``limit``, after the first ``offset``.

        The latest ``FLOODGATE_DEAD_LETTERS__LISTED`` are listed, each for as long as its dead letter would be kept.
        """
        ...

    def count_dropped(self, bot: str, reason: str, letters: int) -> None:
        """Add to the count of dropped dead letters."""
        ...

    def pause(self, bot: str, chat: str | None, duration: timedelta, why: str) -> None:
        """Send nothing to the chat (or, with None, for the bot) for this long. Extends a pause, but never shortens
        it."""
        ...

    def too_many_requests(
        self, bot: str, chat: str | None, retry_after: timedelta, family: CallFamily = CallFamily.MESSAGES
    ) -> Scope:
        """Record a 429: pause the chat, or the bot if ``policy.blames_bot``. Returns which of them was paused.

        A 429 for typing or a draft pauses only these in the chat. Any other pauses the whole chat, because a chat
        refuses messages and edits together during a wait. Unless it is attributed to the bot, it also slows down the
        chat's later calls of the same family, and of no other: they keep a distance that shrinks slowly
        (``policy.WIDER_PERMILLE`` and following).
        """
        ...

    def resume(self, bot: str, chat: str | None) -> bool:
        """End a pause now. Without a chat, also end an outage until calls fail again. Returns whether there was one.

        Jobs that the pause held up ask again within ``policy.PAUSE_POLL`` or, in a line, when their turn comes.
        """
        ...

    def migrate(self, bot: str, old_chat: str, new_chat: str) -> None:
        """Record a chat's new id: its line, budget and pause move there, and jobs for the old id are sent there.

        This is also used for an ``@name`` whose id a send has revealed. Jobs for the name then share the id's line and
        budget, but are still sent to the name, which may pass to another chat. Call this again after each such send: an
        hour after the last call the name counts as a chat of its own again.
        """
        ...

    def vouch_idle(self, bot: str) -> None:
        """Declare that a bot unknown to the store has sent nothing in the last minute and may start at full rate.

        Otherwise the bot starts cautiously, because the store may be new only because the old one was lost.
        """
        ...

    def waiting(self, bot: str) -> Mapping[Priority, int]:
        """The number of jobs that wait in the bot's lines, by priority. Takes constant time."""
        ...

    def snapshot(self, bot: str) -> Snapshot:
        """The state of a bot that ``floodgate status`` shows."""
        ...

    def explain(self, bot: str, chat: str, job_id: str | None = None) -> ChatExplanation:
        """Why a chat's jobs wait, and where one of them stands. Changes nothing.

        Takes the same time however many jobs wait in the chat.
        """
        ...

    def close(self) -> None:
        """Release files and sockets. Safe to call twice."""
        ...
