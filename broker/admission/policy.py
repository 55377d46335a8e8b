"""Charges, limits and their safety margins: the one place for admission's constants.

Everything here is a pure function of settings and arguments. The stores apply the results.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, NamedTuple

from floodgate.broker.admission.contract import Ask, CallFamily, Released, Retrying, Sent, Settlement
from floodgate.broker.admission.windows import Pace, Window
from floodgate.broker.messages.chats import ChatKind, chat_kind
from floodgate.broker.messages.dead_letters import CHAT_UNREACHABLE
from floodgate.broker.messages.job import Job, Priority
from floodgate.broker.messages.method_table import Charge
from floodgate.broker.messages.methods import TYPING_WORTH
from floodgate.broker.settings.model import CONSUMER_TIMEOUT_SECONDS, ChatLimits, Limits, Settings

MILLISECOND: Final = 1_000
SECOND: Final = 1_000_000
MINUTE: Final = 60 * SECOND
_MICROSECOND: Final = timedelta(microseconds=1)

# A strict server counts calls when they arrive. Two calls admitted a second apart arrive closer together if the first
# takes longer to get there; the margin is how much longer it may take. 20 ms cost a bot 2 % of its rate. For chats and
# groups a lower rate costs less than a 429, which pauses the chat for many seconds.
BOT_MARGIN_US: Final = 20 * MILLISECOND
CHAT_MARGIN_US: Final = 50 * MILLISECOND
GROUP_MARGIN_US: Final = 250 * MILLISECOND

# Typing and drafts of one chat, by Telegram's page on AI bots (core.telegram.org/bots/ai): 20 calls in 5 s and 40 in
# 30 s, with cool-downs of up to 3 s even below that, which come as a 429. The margin is a group's.
TYPING_LIMITS: Final = ((20, 5), (40, 30))
# A chat's typing is forgotten after this long, which exceeds both spans.
TYPING_IDLE_US: Final = 1 * MINUTE
# How long the jobs that were enqueued under a key are compared with the same first one. If that one never reaches a
# worker (its queue was purged), another one is sent after this time, whatever follows it.
ENQUEUED_US: Final = 10 * MINUTE
# From a superseded job to the first of its chain, to the first of the chain that this one leads to, to the latest job.
CHAIN_STEPS: Final = 3
ENQUEUED_MOST: Final = 32  # jobs recorded in one call: a run of the Redis script blocks the server for 0.05 ms each

# A permit must be used within this time. A worker that was too busy hands it back, because the call would arrive
# together with those admitted since. This is half of the margin; the other half is for the network.
PROMPT: Final = timedelta(microseconds=BOT_MARGIN_US // 2)

# The number of sends that may go at once after a lull or a late wake-up; otherwise the window is spread evenly.
BURST_SLOTS: Final = 4
# At the rates of paid broadcasts four slots are 4 ms, less than the delay of a busy event loop, and missed slots cannot
# be made up. Allowing 20 ms of catching up requires wider spacing, which costs 2 % of the rate.
BURST_US: Final = 20 * MILLISECOND
# Above this rate a window's log is not worth its cost: spacing alone is within 1 % of the limit.
LOGGED_PER_SECOND: Final = 100

# A bulk job that has waited this long for its bot's budget ranks like an interactive one, so that bulk jobs never
# starve.
AGING_US: Final = 10 * SECOND
# Of a chat's two lines the interactive one goes first; after this many of its jobs the bulk line has a turn.
INTERACTIVE_TURNS: Final = 9

# A job in a worker that is due for the bot's budget but does not ask is passed over after this long (its worker may
# have died). The time is short because each such job leaves its slot unused.
WAITER_GRACE_US: Final = 100 * MILLISECOND
# The head of a line that is this late counts as missing. The jobs behind it wait for the grace period before they step
# over it: longer than RabbitMQ needs, after a crash, to move a job from one level of the delay ladder to the next
# (180 s as shipped). A head that is gone for good (purged by hand) delays its own chat by this much, once.
LATE_US: Final = 1 * SECOND
MISSING_GRACE_US: Final = 200 * SECOND
MISSING_POLL_US: Final = 5 * SECOND
# After the store has gone back in time, the jobs behind a missing head that may be gone wait this long: longer than
# RabbitMQ needs, after a crash and with our advanced.config, to move a job on the delay ladder.
REBUILD_GRACE_US: Final = 6 * SECOND
# A chat's line gives way to its other line only for a job that is due within this time.
CLAIM_US: Final = 50 * MILLISECOND

# The time allowed for an upload assumes a connection of 1 Mbit/s, with a fifth of it for overhead.
UPLOAD_BYTES_PER_SECOND: Final = 100_000
# RabbitMQ takes a message from its worker after the consumer timeout, which must also cover the work besides the call.
SETTLING_SECONDS: Final = 60.0

# A call that may have arrived late counts for its chat from as late as that, but for its bot at most this much later:
# a longer delay is that of a single line or of an answer that the server holds (slow mode), and a unit that is counted
# later takes up the bot's window for longer.
BOT_LATE_MOST_US: Final = 500 * MILLISECOND

# While a call is in flight in the chat: ask again after about half the age of the call.
IN_FLIGHT_MIN_US: Final = 50 * MILLISECOND
IN_FLIGHT_MAX_US: Final = 1 * SECOND
# The wait for each job ahead in a line whose chat is below its rate limit.
PLACE_US: Final = 20 * MILLISECOND
# After a call that took longer than this (slow mode holds calls for up to 10 s), the chat rests for as long as the call
# took, so that it can occupy a partition for at most half of the time.
SLOW_CALL_US: Final = 2500 * MILLISECOND
REST_MAX_US: Final = 60 * SECOND

# A job handed back this many times in a row before its call becomes a dead letter. A busy process hands a permit back
# up to four times per delivery, and a restart does so once; RabbitMQ before 4.3 dead-letters it after 20 deliveries.
HANDED_BACK_MOST: Final = 100

# How long the cancellation of a campaign is kept: longer than a job can be scheduled ahead (388 days). And how many of
# a bot are kept.
CANCELLED_KEPT_US: Final = 400 * 24 * 60 * MINUTE
CANCELLED_MOST: Final = 1000

# An unreachable chat is tried again this long after its last refusal, for an interactive job only.
ASK_ANEW_US: Final = 1 * MINUTE

# The length, in characters, to which Telegram's description of an unreachable chat is cut.
WHY_LENGTH: Final = 200

# How long an ``@name`` stands for the chat that received its last message.
NAME_US: Final = 60 * MINUTE

# A chat without a send, a line, a rest or a pause is forgotten after this long, which exceeds every window.
CHAT_IDLE_US: Final = 10 * MINUTE

# Added to retry_after, which is in whole seconds and does not include the time the answer took to arrive.
PAUSE_MARGIN_US: Final = 100 * MILLISECOND
# An operator may end a pause, so a job it holds up asks again this often: within a minute, and with one wait in the
# delay ladder (2⁸ units). A job behind others in a line asks as much later as its turn comes after theirs.
PAUSE_POLL_US: Final = 32 * SECOND
PAUSE_POLL: Final = timedelta(microseconds=PAUSE_POLL_US)
# Telegram does not say whether a 429 concerns the chat or the bot. It is attributed to the bot if this many chats got
# one within this time:
MOMENT_US: Final = 2 * SECOND
EVIDENCE_CHATS: Final = 3
# No chat's window is longer than a minute, so a longer wait points to the bot: for a minute it counts as two chats. It
# does not suffice alone, because a pause of one chat must not stop the others; if it does concern the bot, the next
# send will show it.
LONG_WAIT_US: Final = 60 * SECOND
LONG_WAIT_CHATS: Final = 2
# The number of refusals kept as evidence, which is more than enough.
REFUSALS_KEPT: Final = 16
# If calls to this many chats go unanswered within this time, with no answer in between, it is an outage: then only an
# occasional probe is sent.
OUTAGE_CHATS: Final = 3
OUTAGE_MOMENT_US: Final = 1 * MINUTE
PROBE_FIRST_US: Final = 1 * SECOND
PROBE_MOST_US: Final = 30 * SECOND
# While a probe is in flight, other jobs check this often whether it was answered.
PROBE_POLL_US: Final = 1 * SECOND
# After a 429 attributed to the bot its rate drops by a step and recovers slowly.
SLOWER_PERMILLE: Final = 930
SLOWEST_PERMILLE: Final = 500
RECOVERY_US_PER_PERMILLE: Final = 1 * SECOND

# After a 429 attributed to a chat, its calls of the same family (messages, edits or typing) keep a distance from each
# other. The first time it is twice the distance at which they keep the chat's limits evenly, and it doubles each time,
# as in the adaptive throttles of bots that stream (hermes-agent doubles the interval of its edits, up to 10 s). The
# bound is 8.4 s for a user, 24 s for a group, 6 s for typing. A bot was banned at 8 to 12 visible calls a minute with
# about as many chat actions beside them (hermes-agent issue 107612): the slowest rate known to have been refused.
WIDER_PERMILLE: Final = 2000
WIDEST_PERMILLE: Final = 8000
# From the end of the wait on, the distance shrinks by the full one in five minutes, whatever is sent: from twice to
# once in five, from eight times in 35. So a chat that needs a slower pace gets about one 429 in five minutes; the waits
# that users of such bots report are 9 to 40 s.
NARROWING_US_PER_PERMILLE: Final = 300 * MILLISECOND
SLOWABLE: Final = (CallFamily.MESSAGES, CallFamily.EDITS, CallFamily.TYPING)


class FloodWait(NamedTuple):
    """A 429: its chat, its time, and whether its wait was long."""

    chat: str
    at: int
    long: bool


@dataclass(frozen=True, slots=True)
class Rates:
    """The limits of one bot, less their margins. ``None`` means unlimited."""

    free: Pace | None
    paid: Pace | None
    chat: Window | None
    group: Window | None
    typing: tuple[Window, ...] = ()
    """The windows of a chat's typing and drafts."""

    def pace(self, paid: bool) -> Pace | None:
        """The pace of paid or of free messages."""
        return self.paid if paid else self.free

    def windows(self, chat: str | None) -> tuple[Window, ...]:
        """The windows that apply to a chat key. An ``@name`` counts as a public group or channel until it is
        resolved."""
        match chat_kind(chat):
            case ChatKind.USER:
                wanted: Sequence[Window | None] = (self.chat,)
            case ChatKind.GROUP | ChatKind.NAME:
                wanted = (self.chat, self.group)
            case ChatKind.INLINE | ChatKind.NONE:
                wanted = ()
        return tuple(window for window in wanted if window is not None)


@dataclass(frozen=True, slots=True)
class Policy:
    """The rates of all bots and chats, and the retention of jobs, results, unreachable chats and jobs without a dead
    letter. Times are in microseconds."""

    default: Rates
    bots: dict[str, Rates]
    chats: dict[tuple[str, str], tuple[Window, ...]]
    names: dict[str, tuple[str, ...]]
    """Each bot's ``@names`` in ``chats``. Their windows also apply to the chats that they stand for."""
    ledger_us: int
    result_us: int
    unreachable_us: int
    listed: int
    listed_us: int | None
    """None: listed forever."""

    def rates(self, bot: str) -> Rates:
        """A bot's own rates, or the default ones."""
        return self.bots.get(bot, self.default)

    def windows(self, bot: str, chat: str | None) -> tuple[Window, ...]:
        """The windows of a chat: those configured for it, or the bot's."""
        if self.chats and chat is not None and (own := self.chats.get((bot, chat))) is not None:
            return own
        return self.rates(bot).windows(chat)


def policy_of(settings: Settings) -> Policy:
    """Derive the policy from the settings."""
    limits = settings.limits
    own = {bot: limits.for_bot(bot) for bot in limits.bots}
    return Policy(
        default=rates_of(limits),
        bots={bot: rates_of(special) for bot, special in own.items()},
        chats={
            (bot, chat): _chat_windows(own.get(bot, limits), special, chat)
            for bot, chats in limits.chats.items()
            for chat, special in chats.items()
        },
        names={
            bot: tuple(chat for chat in chats if chat_kind(chat) is ChatKind.NAME)
            for bot, chats in limits.chats.items()
        },
        ledger_us=int(settings.ledger_seconds * SECOND),
        result_us=int(min(settings.result_seconds, settings.ledger_seconds) * SECOND),
        unreachable_us=int(settings.unreachable_seconds * SECOND),
        listed=settings.dead_letters.listed,
        listed_us=listed_us(settings),
    )


def listed_us(settings: Settings) -> int | None:
    """How long a job without a dead letter is listed, as long as one for an unreachable chat would be kept."""
    kept = settings.dead_letters.kept_for(CHAT_UNREACHABLE)
    return None if kept is None else kept // timedelta(microseconds=1)


def rates_of(limits: Limits) -> Rates:
    """Telegram's limits, less the margins."""
    if not limits.enabled:
        return Rates(None, None, None, None)
    return Rates(
        free=pace_for(limits.bot_per_second),
        paid=pace_for(limits.paid_per_second),
        chat=window_for(limits.chat_per_second, 1, CHAT_MARGIN_US),
        group=window_for(limits.group_per_minute, 60, GROUP_MARGIN_US),
        typing=tuple(Window(calls, seconds * SECOND + GROUP_MARGIN_US) for calls, seconds in TYPING_LIMITS),
    )


def window_for(count: float, seconds: int, margin_us: int) -> Window:
    """A window of ``count`` units in ``seconds``. A count below one becomes one unit in a longer window."""
    span = seconds * SECOND if count >= 1 else int(seconds * SECOND / count)
    return Window(max(1, int(count)), span + margin_us)


def pace_for(per_second: float) -> Pace:
    """The pace of a bot limited to ``per_second`` units, less the margin."""
    window = window_for(per_second, 1, BOT_MARGIN_US)
    interval = window.span_us // window.cap
    if per_second <= LOGGED_PER_SECOND:
        # Closer than even, so that the next slots make up for one that was taken late: the log enforces the window.
        return Pace(window, interval * 97 // 100, BURST_SLOTS * interval)
    # With spacing of (span + tolerance) / (cap - 1), no span holds more than cap.
    tolerance = max(BURST_SLOTS * interval, BURST_US)
    return Pace(None, (window.span_us + tolerance) // (window.cap - 1), tolerance)


def _chat_windows(limits: Limits, special: ChatLimits, chat: str) -> tuple[Window, ...]:
    given = special.model_dump(exclude_none=True)
    return rates_of(limits.model_copy(update=given)).windows(chat)


def ask_for(job: Job, settings: Settings) -> Ask:
    """The facts about a job that admission needs."""
    key, variant = _coalescing(job, settings)
    return Ask(
        job_id=job.id,
        bot=job.bot,
        chat=job.chat,
        kind=chat_kind(job.chat),
        priority=job.priority,
        charge=settings.charge_of(job),
        cost=job.cost,
        paid=job.paid,
        lease=call_timeout(job, settings) + timedelta(seconds=settings.lease_margin_seconds),
        calls_left=max(1, settings.max_attempts - (job.attempts - job.unsent)),
        content=job.content,
        upload=bool(job.files),
        campaign=job.campaign,
        created_ms=max(0, job.created_ms),
        coalesce=key,
        variant=variant,
        final=job.final,
    )


def _coalescing(job: Job, settings: Settings) -> tuple[str | None, str]:
    """The key and variant under which the job supersedes others.

    Edits of one message share a key. As an edit of the text does not say what an edit of the buttons says, each method
    is a variant. What changes more than the message, such as ``stopPoll``, supersedes nothing and is never superseded.
    """
    if job.coalesce is not None:
        return f"key {job.coalesce}", ""
    if not settings.coalesce_edits or (message := job.edited_message) is None:
        return None, ""
    return f"message {message}", job.method if job.method.startswith("edit") else job.id


def may_supersede_unseen(job: Job, ask: Ask) -> bool:
    """Whether a job may supersede one whose message is still in RabbitMQ: it has a key, and it is certain to be sent
    next, being neither delayed nor expiring nor perhaps a duplicate."""
    limited = (job.not_before_ms, job.expires_ms, job.worth_until_ms, job.dedupe_key)
    return ask.coalesce is not None and ask.chat is not None and limited == (None,) * 4


def call_timeout(job: Job, settings: Settings) -> timedelta:
    """The timeout of a job's call. It grows with the size of its files, but stays below RabbitMQ's consumer timeout.

    Typing and drafts get no longer than they are worth, since their partition waits for them. For an upload there are
    about 28 minutes (1.2 MB/s for a file of 2 GB, which only a local Bot API server accepts).
    """
    if settings.charge_of(job) is Charge.TYPING:
        return min(timedelta(seconds=settings.call_timeout_seconds), TYPING_WORTH)
    upload = sum(file.size for file in job.files) / UPLOAD_BYTES_PER_SECOND
    most = CONSUMER_TIMEOUT_SECONDS - settings.hold_seconds - settings.lease_margin_seconds - SETTLING_SECONDS
    seconds = settings.call_timeout_seconds
    return timedelta(seconds=max(seconds, min(seconds + upload, most)))


def must_be_prompt(ask: Ask, settings: Settings) -> bool:
    """Whether a late send could exceed a window. False without limits, and for paid broadcasts, which only spacing
    limits."""
    return settings.limits.enabled and not ask.paid and ask.charge.metered


def chat_cost(ask: Ask) -> int:
    """The units that a call counts for its chat and group. Chat actions and deletions count only for the bot."""
    return ask.cost if ask.charge in (Charge.MESSAGE, Charge.EDIT) else 0


def bot_cost(ask: Ask) -> int:
    """The units that a call counts for its bot."""
    return ask.cost if ask.charge.metered else 0


def line_of(ask: Ask) -> str | None:
    """The chat whose line a job joins; None for reads and answers, which are not ordered."""
    return ask.chat if ask.charge.metered else None


def delays_us(ask: Ask, settlement: Settlement, call_us: int) -> tuple[int, int]:
    """How much later than at its permit a call counts for its chat, and for its bot, in microseconds.

    An upload arrives near the end of its call, whose duration depends on its size. For its bot it counts at its permit
    even so, because counting it twice would cost the bot a third of its rate in uploads of half a second.
    """
    match settlement:
        case Released() | Retrying(charged=False):
            return 0, 0
        case _ if ask.upload:
            return call_us, 0
        case Sent(late=late) if late:
            late_us = min(late // timedelta(microseconds=1), call_us)
            return late_us, min(late_us, BOT_LATE_MOST_US)
        case _:
            return 0, 0


def is_answer(ask: Ask) -> bool:
    """Whether the job answers a query. Queries expire in seconds, so answers are sent during a pause or an outage."""
    return ask.charge is Charge.ANSWER


def is_typing(ask: Ask) -> bool:
    """Whether the job is typing or a draft, which never waits: it is sent at once or shed."""
    return ask.charge is Charge.TYPING


def leaves_letter(ask: Ask, reason: str, settings: Settings) -> bool:
    """Whether a job that ends for this reason becomes a dead letter. Typing and drafts never do: nobody would replay
    them."""
    return not is_typing(ask) and settings.dead_letters.keeps(reason, ask.priority)


def family_of(ask: Ask) -> CallFamily:
    """The family whose pace in the chat a 429 for the call slows down."""
    return _FAMILIES.get(ask.charge, CallFamily.OTHER)


_FAMILIES: Final = {
    Charge.MESSAGE: CallFamily.MESSAGES,
    Charge.EDIT: CallFamily.EDITS,
    Charge.TYPING: CallFamily.TYPING,
}


def outlives(ask: Ask, wait_us: int) -> bool:
    """Whether the job is still worth sending after a wait. It must then be less than its end away."""
    return ask.worth is None or wait_us * _MICROSECOND < ask.worth


def needs_chat(ask: Ask) -> bool:
    """Whether the call shows something in the chat, so that it fails for a user who blocked the bot."""
    return chat_cost(ask) > 0


def spares(age_us: int, priority: Priority) -> bool:
    """Whether a job must not be sent to a chat that Telegram refused ``age_us`` ago."""
    return priority is Priority.BULK or age_us < ASK_ANEW_US


def in_flight_poll(age_us: int) -> int:
    """When to ask again about a chat whose call has been in flight for ``age_us``, in microseconds from now."""
    return min(max(age_us // 2, IN_FLIGHT_MIN_US), IN_FLIGHT_MAX_US)


def rest_after(call_us: int) -> int:
    """How long a chat rests after a call, in microseconds."""
    return min(call_us, REST_MAX_US) if call_us > SLOW_CALL_US else 0


def recent(refusals: Sequence[FloodWait], now: int) -> list[FloodWait]:
    """The refusals that still count as evidence: the latest of each chat, at most :data:`REFUSALS_KEPT`."""
    latest = {one.chat: one for one in refusals if now - one.at < (LONG_WAIT_US if one.long else MOMENT_US)}
    return list(latest.values())[-REFUSALS_KEPT:]


def blames_bot(refusals: Sequence[FloodWait]) -> bool:
    """Whether recent 429s point to a limit of the bot rather than of its chats."""
    return sum(LONG_WAIT_CHATS if one.long else 1 for one in refusals) >= EVIDENCE_CHATS


def probe_interval(failures: int) -> int:
    """The time from the start of an outage, or from a failed probe, to the next probe, in microseconds."""
    doublings = min(failures, 30)  # 2³⁰ s is beyond the bound
    return min(PROBE_FIRST_US << doublings, PROBE_MOST_US)


def learned_permille(permille: int, slowed_at: int, now: int) -> int:
    """The current rate, in thousandths of the full one."""
    return min(1000, permille + max(0, now - slowed_at) // RECOVERY_US_PER_PERMILLE)


def per_second(pace: Pace | None, permille: int = 1000) -> float:
    """The units that a bot may send in a second at this share of its rate; infinite if unlimited."""
    return SECOND / pace.slowed(permille).sustained_interval_us if pace is not None else float("inf")


def slower(permille: int) -> int:
    """The rate one step lower, in thousandths of the full one."""
    return max(SLOWEST_PERMILLE, permille * SLOWER_PERMILLE // 1000)


def wider(permille: int) -> int:
    """The distance between a slowed chat's calls after another 429, in thousandths of the full pace's."""
    return min(WIDEST_PERMILLE, permille * WIDER_PERMILLE // 1000)


def narrowed_permille(permille: int, slowed_at: int, now: int) -> int:
    """The current distance between a slowed chat's calls, in thousandths of the full pace's."""
    return max(1000, permille - max(0, now - slowed_at) // NARROWING_US_PER_PERMILLE)


def recovered_at(permille: int, slowed_at: int) -> int:
    """When a slowed chat has its full pace again."""
    return slowed_at + (permille - 1000) * NARROWING_US_PER_PERMILLE


def spacing_us(windows: Sequence[Window], permille: int) -> int:
    """The distance between calls that keeps these windows evenly, widened to ``permille`` thousandths."""
    return max((window.span_us // window.cap for window in windows), default=0) * permille // 1000
