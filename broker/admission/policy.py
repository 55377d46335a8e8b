"""What is charged to what, and how far below Telegram's limits we stay. The one place for admission's numbers.

Everything here is a function of settings and arguments; the stores apply what it says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, NamedTuple

from floodgate.broker.admission.contract import Ask
from floodgate.broker.admission.windows import Pace, Window
from floodgate.broker.messages.chats import ChatKind, chat_kind
from floodgate.broker.messages.dead_letters import CHAT_UNREACHABLE
from floodgate.broker.messages.job import Job, Priority
from floodgate.broker.messages.methods import CHARGES, Charge
from floodgate.broker.settings.model import CONSUMER_TIMEOUT_SECONDS, ChatLimits, Limits, Settings

MILLISECOND: Final = 1_000
SECOND: Final = 1_000_000
MINUTE: Final = 60 * SECOND

# A strict server judges its window at arrival. Two sends that were admitted a second apart arrive closer if the first
# was the slower one on its way; the margin is how much slower it may be. 20 ms costs a bot 2 % of its rate; a chat's
# and a group's rate are worth less than a 429 to them, which pauses the chat for many seconds.
BOT_MARGIN_US: Final = 20 * MILLISECOND
CHAT_MARGIN_US: Final = 50 * MILLISECOND
GROUP_MARGIN_US: Final = 250 * MILLISECOND

# A permit is for now. One that was not used within this, because its worker had a busy moment, is handed back: the
# send would fall together with those admitted since. Half of the margin; the other half is for the network.
PROMPT: Final = timedelta(microseconds=BOT_MARGIN_US // 2)

# So many sends may follow at once on a lull or a late wake-up; beyond it the window is spread evenly.
BURST_SLOTS: Final = 4
# At the rates of paid broadcasts four slots are 4 ms, less than a busy event loop is late, and what is missed is lost
# for
# good. Catching up on 20 ms costs 2 % of the rate, which is spaced wider for it.
BURST_US: Final = 20 * MILLISECOND
# Above this rate a window's log would cost more than it gives: spacing alone is then within 1 % of the limit.
LOGGED_PER_SECOND: Final = 100

# A bulk job that has waited this long for its bot's budget goes like an interactive one, so that bulk never stops for
# good.
AGING_US: Final = 10 * SECOND
# Between two lines of one chat, interactive goes first; after so many the bulk line has a turn.
INTERACTIVE_TURNS: Final = 9

# A job in hand that was due and does not ask is passed over for the bot's budget (its worker may be gone). Not for
# long: each such job idles its slot.
WAITER_GRACE_US: Final = 100 * MILLISECOND
# The head of a line that is this late is missing; those behind it wait for the grace before they step over it.
# It is longer than RabbitMQ can take, after a crash, to hand a job on from one level of the delay ladder to the next
# (180 s as shipped). A head that is gone for good (purged by hand) costs its own chat this wait, once.
LATE_US: Final = 1 * SECOND
MISSING_GRACE_US: Final = 200 * SECOND
MISSING_POLL_US: Final = 5 * SECOND
# Two lines of a chat give way to each other only for a job that is due about now.
CLAIM_US: Final = 50 * MILLISECOND

# An upload is given as long as its size takes on a line of 1 Mbit/s, with a fifth for what is not payload.
UPLOAD_BYTES_PER_SECOND: Final = 100_000
# RabbitMQ takes a message from its worker after the consumer timeout: what is not the call must fit in there, too.
SETTLING_SECONDS: Final = 60.0

# While a call is under way in the chat: ask again after about half the age of the call.
IN_FLIGHT_MIN_US: Final = 50 * MILLISECOND
IN_FLIGHT_MAX_US: Final = 1 * SECOND
# For each place before one's own in a line whose chat has no rate in the way.
PLACE_US: Final = 20 * MILLISECOND
# A chat whose call took longer (slow mode holds them for up to 10 s) rests as long again, so that it can hold a
# partition for half of the time at most.
SLOW_CALL_US: Final = 2500 * MILLISECOND
REST_MAX_US: Final = 60 * SECOND

# A job handed back so many times in a row before its call ends as a dead letter. A busy process hands a permit back up
# to four times for one delivery, and a restart once; RabbitMQ before 4.3 ends such a job at 20 deliveries itself.
HANDED_BACK_MOST: Final = 100

# An unreachable chat is tried again so long after its last refusal, for a job that a person waits for.
ASK_ANEW_US: Final = 1 * MINUTE

# What Telegram said of an unreachable chat is kept to this length.
WHY_LENGTH: Final = 200

# An ``@name`` is taken for the chat that its last message went to for so long.
NAME_US: Final = 60 * MINUTE

# After so long without a send, a line, a rest or a pause a chat is forgotten. Longer than any window.
CHAT_IDLE_US: Final = 10 * MINUTE

# Retry-after is in whole seconds and the answer was under way for a moment.
PAUSE_MARGIN_US: Final = 100 * MILLISECOND
# Telegram does not say whether a 429 is for the chat or the bot. It is taken for the bot's when this many chats got
# one in a moment:
MOMENT_US: Final = 2 * SECOND
EVIDENCE_CHATS: Final = 3
# No window of a chat is longer than a minute, so a longer wait is no chat's window: it counts for two chats, for a
# minute. It is not enough alone, for a chat's own pause must not stop the others; if it is the bot's, the next send
# tells.
LONG_WAIT_US: Final = 60 * SECOND
LONG_WAIT_CHATS: Final = 2
# Evidence is bounded: so many chats suffice by far.
REFUSALS_KEPT: Final = 16
# Calls without an answer from Telegram, of so many chats within so long and with no answer in between, are an outage:
# nothing is sent then but a probe now and then.
OUTAGE_CHATS: Final = 3
OUTAGE_MOMENT_US: Final = 1 * MINUTE
PROBE_FIRST_US: Final = 1 * SECOND
PROBE_MOST_US: Final = 30 * SECOND
# While a probe is under way the others look so often whether it was answered.
PROBE_POLL_US: Final = 1 * SECOND
# A 429 for the bot teaches: the working rate falls by a step and comes back slowly.
SLOWER_PERMILLE: Final = 930
SLOWEST_PERMILLE: Final = 500
RECOVERY_US_PER_PERMILLE: Final = 1 * SECOND


class FloodWait(NamedTuple):
    """A 429: whose, when, and whether its wait was a long one."""

    chat: str
    at: int
    long: bool


@dataclass(frozen=True, slots=True)
class Rates:
    """The limits of one bot with their margins taken off. ``None``: unmetered."""

    free: Pace | None
    paid: Pace | None
    chat: Window | None
    group: Window | None

    def pace(self, paid: bool) -> Pace | None:
        return self.paid if paid else self.free

    def windows(self, chat: str | None) -> tuple[Window, ...]:
        """The windows a chat key is under. An ``@name`` is a public group or channel until it is resolved."""
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
    """The rates of every bot and chat, from settings; and how long, or how many, jobs, results, unreachable chats and
    jobs without a dead letter are kept."""

    default: Rates
    bots: dict[str, Rates]
    chats: dict[tuple[str, str], tuple[Window, ...]]
    names: dict[str, tuple[str, ...]]
    """Each bot's ``@names`` in ``chats``. Their windows are also those of the chat that they stand for."""
    ledger_us: int
    result_us: int
    unreachable_us: int
    listed: int
    listed_us: int | None
    """None: listed without an end."""

    def rates(self, bot: str) -> Rates:
        return self.bots.get(bot, self.default)

    def windows(self, bot: str, chat: str | None) -> tuple[Window, ...]:
        if self.chats and chat is not None and (own := self.chats.get((bot, chat))) is not None:
            return own
        return self.rates(bot).windows(chat)


def policy_of(settings: Settings) -> Policy:
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
    """How long a job without a dead letter is listed: those that are not kept died of an unreachable chat."""
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
    )


def window_for(count: float, seconds: int, margin_us: int) -> Window:
    """A window of ``count`` in ``seconds``; a count below one becomes one in a longer window."""
    span = seconds * SECOND if count >= 1 else int(seconds * SECOND / count)
    return Window(max(1, int(count)), span + margin_us)


def pace_for(per_second: float) -> Pace:
    window = window_for(per_second, 1, BOT_MARGIN_US)
    interval = window.span_us // window.cap
    if per_second <= LOGGED_PER_SECOND:
        # A little closer than even: the log holds the window, and spacing must not add its own delay to it.
        return Pace(window, interval * 99 // 100, BURST_SLOTS * interval)
    # Spacing of (span + tolerance) / (cap - 1) lets no span hold more than cap.
    tolerance = max(BURST_SLOTS * interval, BURST_US)
    return Pace(None, (window.span_us + tolerance) // (window.cap - 1), tolerance)


def _chat_windows(limits: Limits, special: ChatLimits, chat: str) -> tuple[Window, ...]:
    given = special.model_dump(exclude_none=True)
    return rates_of(limits.model_copy(update=given)).windows(chat)


def ask_for(job: Job, settings: Settings) -> Ask:
    """What admission needs to know of a job."""
    return Ask(
        job_id=job.id,
        bot=job.bot,
        chat=job.chat,
        kind=chat_kind(job.chat),
        priority=job.priority,
        charge=CHARGES[job.method],
        cost=job.cost,
        paid=job.paid,
        lease=call_timeout(job, settings) + timedelta(seconds=settings.lease_margin_seconds),
        calls_left=max(1, settings.max_attempts - (job.attempts - job.unsent)),
        content=job.content,
    )


def call_timeout(job: Job, settings: Settings) -> timedelta:
    """How long the job's call may take: longer by the size of its files, and in any case less than RabbitMQ's consumer
    timeout. That leaves a file of 2 GB, which only a local Bot API server takes, some 28 minutes (1.2 MB/s).
    """
    upload = sum(file.size for file in job.files) / UPLOAD_BYTES_PER_SECOND
    most = CONSUMER_TIMEOUT_SECONDS - settings.hold_seconds - settings.lease_margin_seconds - SETTLING_SECONDS
    seconds = settings.call_timeout_seconds
    return timedelta(seconds=max(seconds, min(seconds + upload, most)))


def must_be_prompt(ask: Ask, settings: Settings) -> bool:
    """Whether a late send could break a window. Not without limits, and not at the rates of paid broadcasts, which are
    kept by spacing alone."""
    return settings.limits.enabled and not ask.paid and ask.charge.metered


def chat_cost(ask: Ask) -> int:
    """Units a call counts in its chat and group. Chat actions and deletions count for the bot only."""
    return ask.cost if ask.charge in (Charge.MESSAGE, Charge.EDIT) else 0


def bot_cost(ask: Ask) -> int:
    return ask.cost if ask.charge.metered else 0


def line_of(ask: Ask) -> str | None:
    """The chat whose line a job joins. Reads and answers keep no order."""
    return ask.chat if ask.charge.metered else None


def is_answer(ask: Ask) -> bool:
    """Whether the job answers a query, which expires in seconds: it goes in a pause and in an outage, too."""
    return ask.charge is Charge.ANSWER


def needs_chat(ask: Ask) -> bool:
    """Whether the call is for somebody to see in the chat: whoever blocked the bot cannot."""
    return chat_cost(ask) > 0


def spares(age_us: int, priority: Priority) -> bool:
    """Whether a job is spared a chat that was refused ``age_us`` ago."""
    return priority is Priority.BULK or age_us < ASK_ANEW_US


def in_flight_poll(age_us: int) -> int:
    return min(max(age_us // 2, IN_FLIGHT_MIN_US), IN_FLIGHT_MAX_US)


def rest_after(call_us: int) -> int:
    """How long a chat rests after a call."""
    return min(call_us, REST_MAX_US) if call_us > SLOW_CALL_US else 0


def recent(refusals: Sequence[FloodWait], now: int) -> list[FloodWait]:
    """The refusals that still count as evidence, one a chat, the newest 16."""
    latest = {one.chat: one for one in refusals if now - one.at < (LONG_WAIT_US if one.long else MOMENT_US)}
    return list(latest.values())[-REFUSALS_KEPT:]


def blames_bot(refusals: Sequence[FloodWait]) -> bool:
    """Whether recent 429s are evidence of a limit of the bot and not of the chats."""
    return sum(LONG_WAIT_CHATS if one.long else 1 for one in refusals) >= EVIDENCE_CHATS


def probe_interval(failures: int) -> int:
    """How long after an outage was noticed, or a probe failed, the next probe is made."""
    doublings = min(failures, 30)  # 2³⁰ s is beyond the bound
    return min(PROBE_FIRST_US << doublings, PROBE_MOST_US)


def learned_permille(permille: int, slowed_at: int, now: int) -> int:
    """The working rate now, in thousandths of the full one."""
    return min(1000, permille + max(0, now - slowed_at) // RECOVERY_US_PER_PERMILLE)


def per_second(pace: Pace | None, permille: int = 1000) -> float:
    """The most a bot sends in a second at this part of its rate; infinite when unmetered."""
    return SECOND / pace.slowed(permille).sustained_interval_us if pace is not None else float("inf")


def slower(permille: int) -> int:
    return max(SLOWEST_PERMILLE, permille * SLOWER_PERMILLE // 1000)
