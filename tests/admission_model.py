"""Admission written as simply as possible: every grant is remembered forever, lines are lists, counting is by
searching.

The stores are compared with it. It shares the contract and the policy's numbers with them but none of their
arithmetic. It does not model waits for a place in a line to the microsecond, only whose turn it is.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from floodgate.broker.admission import policy
from floodgate.broker.admission.clock import Clock
from floodgate.broker.admission.contract import (
    CANCELLED,
    SHED,
    SUPERSEDED,
    AlreadyDead,
    AlreadySent,
    Ask,
    CallFamily,
    Dead,
    Decision,
    Exhausted,
    Go,
    Line,
    NotKept,
    Pause,
    Record,
    Released,
    Retrying,
    Scope,
    Sent,
    Settlement,
    SlowedChat,
    Snapshot,
    Standing,
    Unreachable,
    UnreachableChat,
    Unsettled,
    Wait,
)
from floodgate.broker.admission.windows import Pace, Window
from floodgate.broker.messages.job import Priority
from floodgate.broker.messages.method_table import Charge


@dataclass
class Job:
    id: str
    chat: str | None
    priority: Priority
    order: int
    joined: int
    units: int
    bot_units: int = 0
    paid: bool = False
    state: str = "waiting"  # lost, sending, sent, dead
    present: bool = True
    due: int = 0
    since: int = 0
    lease_end: int = 0
    first_asked_bot: int = 0
    bot_until: int = 0
    result: Any = None
    error: dict[str, Any] | None = None
    grants: int = 0  # all except those settled as retrying
    handed_back: int = 0
    key: tuple[str, str] | None = None  # with the variant
    keyed_in: str | None = None  # the chat in whose line it joined, or to which it moved while it was in line
    final: bool = False
    group: Group | None = None


@dataclass
class Group:
    """Jobs that superseded each other."""

    first: str
    latest: str
    joined: Group | None = None


@dataclass
class Enqueued:
    """Jobs that were enqueued under one key, and that no worker has received and nothing has superseded: one or two."""

    kind: tuple[str, str | None]
    since: int
    jobs: list[Ask] = field(default_factory=list)
    groups: dict[str, Group] = field(default_factory=dict)


@dataclass
class Chat:
    units: list[tuple[int, str]] = field(default_factory=list)  # time and grant
    sending: str | None = None
    sending_since: int = 0
    lease_end: int = 0
    rest_until: int = 0
    paused_until: int = 0
    overtaken: int = 0
    refused: tuple[int, str] | None = None  # the time and Telegram's error
    missing_since: dict[Priority, int] = field(default_factory=lambda: defaultdict(int))


@dataclass
class Typing:
    sent: list[int] = field(default_factory=list)
    paused_until: int = 0


@dataclass
class LearnedPace:
    permille: int = 1000
    recovers_from: int = 0
    next_at: int = 0
    grant: int = 0


@dataclass
class Outage:
    since: int
    probe_at: int
    probe: int | None = None  # the grant of the one in flight
    failed: int = 0


@dataclass
class Bot:
    born: int
    units: dict[bool, list[tuple[int, str]]] = field(default_factory=lambda: {False: [], True: []})
    arrival: dict[bool, int] = field(default_factory=lambda: {False: 0, True: 0})
    granted: int = 0
    offset: int = 0
    paused_until: int = 0
    permille: int = 1000
    slowed_at: int = 0
    refusals: list[policy.FloodWait] = field(default_factory=list)
    jobs: dict[str, Job] = field(default_factory=dict)
    chats: dict[str, Chat] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    names: dict[str, int] = field(default_factory=dict)  # until when a name has its alias
    orders: int = 0
    unanswered: list[tuple[str | None, int]] = field(default_factory=list)  # since the last answer
    outage: Outage | None = None
    not_kept: list[tuple[str, str | None, str, int]] = field(default_factory=list)
    typing: dict[str, Typing] = field(default_factory=lambda: defaultdict(Typing))
    paces: dict[tuple[str, CallFamily], LearnedPace] = field(default_factory=dict)
    enqueued: dict[tuple[str, Priority, str], Enqueued] = field(default_factory=dict)
    shed: int = 0
    superseded: int = 0
    dropped: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    cancelled: dict[str | None, tuple[int, int]] = field(default_factory=dict)  # by campaign: before (ms), and when


def us(duration: timedelta) -> int:
    return duration // timedelta(microseconds=1)


def grant_of(job: Job) -> str:
    return f"{job.id} at {job.since}"


def unit_times(windows: tuple[Window, ...], cost: int, now: int) -> list[int]:
    """The times at which a call's units count: now, and those that exceed a window, one window later, and so on."""
    return [now + max(unit // window.cap * window.span_us for window in windows) for unit in range(cost)]


def fits(units: list[tuple[int, str]], windows: tuple[Window, ...], cost: int, at: int) -> bool:
    return all(
        sum(1 for when, _ in units if when > at - window.span_us) + min(cost, window.cap) <= window.cap
        for window in windows
        if cost
    )


def earliest(units: list[tuple[int, str]], windows: tuple[Window, ...], cost: int, start: int) -> int:
    candidates = {start} | {when + window.span_us for when, _ in units for window in windows}
    return min(at for at in candidates if at >= start and fits(units, windows, cost, at))


class PlainModel:
    def __init__(self, rules: policy.Policy, clock: Clock) -> None:
        self.policy = rules
        self.clock = clock
        self.bots: dict[str, Bot] = {}
        self.bot = Bot(0)
        self.name = ""
        self.now = 0

    def _open(self, name: str) -> None:
        ticks = self.clock.read().ticks_us
        if name not in self.bots:
            self.bots[name] = bot = Bot(born=ticks)
            for paid in (False, True):
                pace = self.policy.rates(name).pace(paid)
                if pace is not None:
                    bot.arrival[paid] = ticks + pace.tolerance_us
                    if pace.window is not None:
                        cap, span = pace.window
                        bot.units[paid] = [(ticks - span + span * unit // cap, "") for unit in range(cap)]
        self.name, self.bot = name, self.bots[name]
        if ticks + self.bot.offset < self.bot.granted:
            self.bot.offset = self.bot.granted - ticks
        self.now = ticks + self.bot.offset

    # The contract.

    def admit(self, ask: Ask) -> Decision:
        self._open(ask.bot)
        bot, now = self.bot, self.now
        job = bot.jobs.get(ask.job_id)
        if job is not None:
            if job.state == "sent":
                return AlreadySent(job.result)
            if job.state == "dead":
                return AlreadyDead(job.result)
            if job.state == "lost" or (job.state == "sending" and job.lease_end <= now):
                return Unsettled(timedelta(microseconds=now - job.since))
            if job.state == "sending":
                return self._wait(job.lease_end - now, Scope.CHAT, "lease")
            if job.grants >= ask.calls_left or job.handed_back >= policy.HANDED_BACK_MOST:
                return Exhausted(job.grants, job.handed_back)
        if any(ask.created_ms < bot.cancelled.get(one, (0, 0))[0] for one in (None, ask.campaign)):
            return AlreadyDead(self.cancel(ask).reason or "")
        if ask.charge is Charge.TYPING:
            return self._admit_typing(ask)
        key = policy.line_of(ask) if job is None else job.chat
        chat = self._chat(key) if key is not None else None
        if chat is not None:
            self._reclaim(chat)
            if chat.refused is not None and self._holds(chat) and policy.chat_cost(ask):
                asked_anew = ask.priority is not Priority.BULK and now - chat.refused[0] >= policy.ASK_ANEW_US
                if not asked_anew:
                    return Unreachable(chat.refused[1])
        earlier = None
        if job is None:
            bot.orders += 1
            job = Job(ask.job_id, None, ask.priority, bot.orders, self.now, policy.chat_cost(ask), paid=ask.paid)
            earlier = self._supersedable(ask)
            bot.jobs[job.id] = job
        job.chat = job.keyed_in = self._real(key)
        job.present = True
        backing_off = None
        if ask.coalesce is not None and job.chat is not None:
            job.key, job.final = (ask.coalesce, ask.variant), ask.final
        unseen = None if job.group is not None else self._superseded_unseen(ask)
        job.group = job.group or unseen
        if earlier is not None:
            job.order, job.joined, job.lease_end = earlier.order, earlier.joined, earlier.lease_end
            if job.paid == earlier.paid:
                job.first_asked_bot, job.bot_units = earlier.first_asked_bot, policy.bot_cost(ask)
            if earlier.lease_end and earlier.due > now:
                backing_off = self._wait(earlier.due - now, Scope.CHAT, "line")
            earlier.state, earlier.bot_until = "dead", 0  # at least while the wait is worked out
        wait = backing_off or self._chat_wait(job, chat, policy.family_of(ask)) or self._bot_wait(ask, job)
        if ask.worth is not None and ask.worth <= (wait.delay if wait is not None else timedelta()):
            if earlier is not None:
                earlier.state = "waiting"
            return self._shed(ask)
        if earlier is not None:
            bot.superseded += 1
            earlier.result, earlier.first_asked_bot = SUPERSEDED, 0
            earlier.group = job.group = earlier.group or Group(earlier.id, job.id)
            job.group.latest = job.id
            if unseen is not None and unseen is not job.group:
                unseen.joined = job.group
        if wait is None:
            return self._go(ask, job, chat)
        job.due = now + us(wait.delay)
        if wait.scope is Scope.CHAT:
            job.first_asked_bot = 0
        job.bot_until = job.due
        return wait

    def enqueued(self, bot: str, asks: Sequence[Ask]) -> None:
        self._open(bot)
        for ask in asks:
            if ask.job_id not in self.bot.jobs or self.bot.jobs[ask.job_id].state not in ("sent", "dead"):
                self._note_enqueued(ask)

    def _note_enqueued(self, ask: Ask) -> None:
        assert ask.chat is not None
        assert ask.coalesce is not None
        jobs, found = self.bot.jobs, self._enqueued(ask)
        if found is not None and ask.job_id in [one.job_id for one in found.jobs]:
            return
        kind = ask.variant, ask.campaign
        if found is None or found.kind != kind or found.jobs[-1].final or found.jobs[-1].job_id in jobs:
            found = self.bot.enqueued[ask.chat, ask.priority, ask.coalesce] = Enqueued(kind, self.now)
        if len(found.jobs) == 2 and found.jobs[0].job_id in jobs:
            del found.jobs[0]
            found.since = self.now
        elif len(found.jobs) == 2:
            old = found.jobs.pop()
            group = found.groups.setdefault(ask.job_id, found.groups.get(old.job_id) or Group(old.job_id, ""))
            group.latest = ask.job_id
            jobs[old.job_id] = Job(old.job_id, None, old.priority, 0, 0, 0, state="dead", present=False)
            jobs[old.job_id].result, jobs[old.job_id].group = SUPERSEDED, group
            self.bot.superseded += 1
        found.jobs.append(ask)

    def _enqueued(self, ask: Ask) -> Enqueued | None:
        found = self.bot.enqueued.get((ask.chat or "", ask.priority, ask.coalesce or ""))
        return found if found is not None and self.now < found.since + policy.ENQUEUED_US else None

    def _superseded_unseen(self, ask: Ask) -> Group | None:
        found = self._enqueued(ask)
        kept = found is not None and ask.job_id in [one.job_id for one in found.jobs]
        return found.groups.get(ask.job_id) if found is not None and kept else None

    def _supersedable(self, ask: Ask) -> Job | None:
        waiting = [
            job
            for job in self.bot.jobs.values()
            if job.key is not None
            and job.key[0] == ask.coalesce
            and (job.state, job.priority) == ("waiting", ask.priority)
            and job.keyed_in == self._real(policy.line_of(ask))
        ]
        last = max(waiting, key=lambda job: job.order, default=None)
        return last if last is not None and not last.final and last.key == (ask.coalesce, ask.variant) else None

    def expect(self, ask: Ask, delay: timedelta) -> None:
        """The job was told to ask again after ``delay``, regardless of the model's answer."""
        job = self.bots[ask.bot].jobs[ask.job_id]
        job.due = job.bot_until = self.now + us(delay)

    def renew_unsettled(self, ask: Ask) -> Decision:
        self._open(ask.bot)
        job = self.bot.jobs.get(ask.job_id)
        if job is not None and (job.state == "lost" or (job.state == "sending" and job.lease_end <= self.now)):
            if job.chat is not None and self._chat(job.chat).sending == job.id:
                self._chat(job.chat).sending = None
            job.state, job.since, job.due = "waiting", 0, self.now
        return self.admit(ask)

    def settle(self, ask: Ask, settlement: Settlement, grant: int | None = None) -> None:
        self._open(ask.bot)
        job = self.bot.jobs.get(ask.job_id)
        if job is None:
            if isinstance(settlement, Sent | Dead):
                job = Job(ask.job_id, None, ask.priority, 0, 0, 0, present=False)
                self.bot.jobs[job.id] = job
            else:
                return
        if job.state in ("sent", "dead"):
            return
        if grant is not None and grant == job.since:
            self._learn(ask, job, settlement)
        if job.state == "sending" and grant in (None, job.since):
            self._count_later(ask, job, settlement)
        match settlement:
            case Sent(result=result):
                self._end_call(job)
                if policy.chat_cost(ask) and job.chat in self.bot.chats:
                    self.bot.chats[job.chat].refused = None
                job.state, job.result, job.first_asked_bot = "sent", result, 0
                job.error = settlement.error
            case Dead(reason=reason):
                self._end_call(job)
                job.state, job.result, job.first_asked_bot = "dead", reason, 0
                job.error = settlement.error
                if not settlement.kept and reason == SHED:
                    self.bot.shed += 1
                elif not settlement.kept:
                    self.bot.not_kept.append((job.id, ask.chat, reason, self.now))
            case Retrying() | Released():
                if grant not in (None, job.since):
                    return
                charged = isinstance(settlement, Retrying) and settlement.charged
                job.grants -= 1 if job.since else 0
                job.handed_back = job.handed_back + 1 if isinstance(settlement, Released) else 0
                if not charged and job.since:
                    self._refund(job)
                    pace = self._pace_of(job.chat, policy.family_of(ask))
                    if pace is not None and pace.grant == job.since:
                        pace.next_at = job.since
                self._end_call(job)
                delay = us(settlement.delay) if isinstance(settlement, Retrying) else 0
                job.state, job.since, job.due = "waiting", 0, self.now + delay
                job.present, job.first_asked_bot = True, 0

    def cancel(self, ask: Ask, listed: bool = True) -> Record:
        self._open(ask.bot)
        job = self.bot.jobs.get(ask.job_id)
        if job is None or job.state == "waiting":
            self.settle(ask, Dead(CANCELLED, kept=not listed))
        record = self.lookup(ask.bot, ask.job_id)
        assert record is not None
        return record

    def cancel_campaign(self, bot: str, campaign: str | None, before_ms: int) -> None:
        self._open(bot)
        cancelled = self.bot.cancelled
        cancelled[campaign] = max(before_ms, cancelled.get(campaign, (0, 0))[0]), self.now
        latest = sorted(cancelled.items(), key=lambda one: -one[1][1])[: policy.CANCELLED_MOST]
        self.bot.cancelled = {name: its for name, its in latest if its[1] >= self.now - policy.CANCELLED_KEPT_US}

    def lookup(self, bot: str, job_id: str) -> Record | None:
        self._open(bot)
        job = self.bot.jobs.get(job_id)
        if job is None:
            return None
        if job.result == SUPERSEDED and job.group is not None:
            group = job.group
            while group.joined is not None:
                group = group.joined
            latest = self.lookup(bot, group.latest) or Record(Standing.WAITING, due=timedelta())
            return replace(latest, chain=group.first)
        standing = Standing("waiting" if job.state == "lost" else job.state)
        paused_until = max(self.bot.paused_until, self._chat(job.chat).paused_until if job.chat is not None else 0)
        waits = timedelta(microseconds=max(0, max(job.due, paused_until) - self.now))
        return Record(
            standing,
            result=job.result if standing is Standing.SENT else None,
            reason=job.result if standing is Standing.DEAD else None,
            error=job.error,
            due=waits if standing is Standing.WAITING else None,
        )

    def reopen(self, bot: str, job_id: str) -> Record | None:
        found = self.lookup(bot, job_id)
        if found is not None and found.standing is Standing.DEAD and self.bot.jobs[job_id].result != SUPERSEDED:
            del self.bot.jobs[job_id]
        return found

    def mark_unreachable(self, bot: str, chat: str, why: str) -> None:
        self._open(bot)
        self._reclaim(self._chat(chat))
        self._chat(chat).refused = (self.now, why)

    def heard_from(self, bot: str, chat: str) -> bool:
        self._open(bot)
        found = self.bot.chats.get(self._real(chat) or "")
        held = found is not None and self._holds(found)
        if found is not None:
            found.refused = None
        return held

    def unreachable(self, bot: str, limit: int = 1000, offset: int = 0) -> Sequence[UnreachableChat]:
        self._open(bot)
        held = [(key, *chat.refused) for key, chat in self.bot.chats.items() if chat.refused and self._holds(chat)]
        latest = sorted(held, key=lambda one: -one[1])[offset : offset + limit]
        return [UnreachableChat(key, why, timedelta(microseconds=self.now - at)) for key, at, why in latest]

    def unreachable_among(self, bot: str, chats: Sequence[str]) -> Sequence[str]:
        held = {chat.chat for chat in self.unreachable(bot)}
        return [chat for chat in chats if self._real(chat) in held]

    def not_kept(self, bot: str, limit: int = 1000, offset: int = 0) -> Sequence[NotKept]:
        self._open(bot)
        latest = self.bot.not_kept[::-1][: self.policy.listed]
        ages = [(job_id, chat, reason, self.now - at) for job_id, chat, reason, at in latest]
        kept_us = self.policy.listed_us
        young = [(*job, age) for *job, age in ages if kept_us is None or age < kept_us]
        return [NotKept(*job, timedelta(microseconds=age)) for *job, age in young[offset : offset + limit]]

    def count_dropped(self, bot: str, reason: str, letters: int) -> None:
        self._open(bot)
        self.bot.dropped[reason] += letters

    def pause(self, bot: str, chat: str | None, duration: timedelta, why: str) -> None:
        self._open(bot)
        until = self.now + us(duration)
        if chat is None:
            self._pause_bot(until)
        else:
            self._reclaim(self._chat(chat))
            self._chat(chat).paused_until = max(self._chat(chat).paused_until, until)

    def too_many_requests(
        self, bot: str, chat: str | None, retry_after: timedelta, family: CallFamily = CallFamily.MESSAGES
    ) -> Scope:
        self._open(bot)
        duration = retry_after + timedelta(microseconds=policy.PAUSE_MARGIN_US)
        if family is CallFamily.TYPING:
            its = self.bot.typing[self._real(chat) or ""]
            its.paused_until = max(its.paused_until, self.now + us(duration))
            scope = Scope.CHAT
        else:
            scope = self._flood_wait(bot, chat, retry_after, duration)
        if chat is not None and scope is Scope.CHAT:
            self._slow_down(self._real(chat) or "", family, self.now + us(duration))
        return scope

    def _slow_down(self, key: str, family: CallFamily, wait_end: int) -> None:
        if family is CallFamily.OTHER or not self._interval(key, family, 1000):
            return
        known = self._pace_of(key, family)
        pace = self.bot.paces[key, family] = known or LearnedPace()
        if self.now >= pace.recovers_from:
            pace.permille = min(8000, 2 * self._width(pace))
        pace.recovers_from = pace.next_at = max(pace.recovers_from, wait_end)
        pace.grant = 0

    def _width(self, pace: LearnedPace) -> int:
        recovered = max(0, self.now - pace.recovers_from) // policy.NARROWING_US_PER_PERMILLE
        return max(1000, pace.permille - recovered)

    def _pace_of(self, key: str | None, family: CallFamily) -> LearnedPace | None:
        pace = self.bot.paces.get((key or "", family))
        return pace if pace is not None and self.now < self._recovery(pace) else None

    def _interval(self, key: str, family: CallFamily, permille: int) -> int:
        windows = self.policy.rates(self.name).typing if family is CallFamily.TYPING else self._windows(key)
        return max((window.span_us // window.cap for window in windows), default=0) * permille // 1000

    def _space_out(self, ask: Ask, key: str | None, units: int) -> None:
        family = policy.family_of(ask)
        if key is not None and (pace := self._pace_of(key, family)) is not None:
            pace.grant = self.now
            pace.next_at = self.now + units * self._interval(key, family, self._width(pace))

    def _flood_wait(self, bot: str, chat: str | None, retry_after: timedelta, duration: timedelta) -> Scope:
        if chat is not None:
            self.pause(bot, chat, duration, "429")
        self._open(bot)
        refusal = policy.FloodWait(self._real(chat) or "", self.now, us(retry_after) > policy.LONG_WAIT_US)
        self.bot.refusals = policy.recent([*self.bot.refusals, refusal], self.now)
        if not policy.blames_bot(self.bot.refusals):
            return Scope.CHAT
        if self.bot.paused_until <= self.now:
            self.bot.permille = policy.slower(self._permille())
            self.bot.slowed_at = self.now
        self.pause(bot, None, duration, "429")
        return Scope.BOT

    def resume(self, bot: str, chat: str | None) -> bool:
        self._open(bot)
        if chat is not None:
            known = self.bot.chats.get(self._real(chat) or "", Chat())
            if known.paused_until <= self.now:
                return False
            known.paused_until = 0
            return True
        if self.bot.paused_until <= self.now and self.bot.outage is None:
            return False
        self.bot.paused_until, self.bot.outage, self.bot.unanswered = 0, None, []
        for paid in (False, True):
            if (pace := self.policy.rates(bot).pace(paid)) is not None:
                self.bot.arrival[paid] = self.now + pace.tolerance_us
        return True

    def migrate(self, bot: str, old_chat: str, new_chat: str) -> None:
        self._open(bot)
        new = self._real(new_chat)
        assert new is not None
        if old_chat.startswith("@"):
            known = self.bot.aliases.get(old_chat) == new
            if known and self.bot.names[old_chat] - self.now >= policy.NAME_US // 2:
                return
            self.bot.aliases[old_chat], self.bot.names[old_chat] = new, self.now + policy.NAME_US
            self._move(old_chat, new)
            return
        old = self._real(old_chat)
        assert old is not None
        if old == new:
            return
        for alias, real in self.bot.aliases.items():
            if real == old:
                self.bot.aliases[alias] = new
        self.bot.aliases[old] = new
        self._move(old, new)

    def _move(self, old: str, new: str) -> None:
        for family in CallFamily:
            gone_pace, pace = self._pace_of(old, family), self._pace_of(new, family)
            self.bot.paces.pop((old, family), None)
            if gone_pace is not None and (pace is None or self._recovery(pace) < self._recovery(gone_pace)):
                self.bot.paces[new, family] = gone_pace
        for job in self.bot.jobs.values():
            if job.chat == old:
                job.chat = new
                job.keyed_in = new if job.present else job.keyed_in
        gone = self.bot.chats.pop(old, None)
        if gone is None:
            return
        chat = self.bot.chats.setdefault(new, Chat())
        chat.units += gone.units
        chat.rest_until = max(chat.rest_until, gone.rest_until)
        chat.paused_until = max(chat.paused_until, gone.paused_until)
        chat.missing_since.clear()
        if chat.sending is None:
            chat.sending, chat.sending_since, chat.lease_end = gone.sending, gone.sending_since, gone.lease_end

    def vouch_idle(self, bot: str) -> None:
        self._open(bot)
        if not self.bot.granted:
            self.bot.born = 0
            self.bot.units = {False: [], True: []}
            self.bot.arrival = {False: 0, True: 0}

    def waiting(self, bot: str) -> dict[Priority, int]:
        self._open(bot)
        waiting = self._waiting()
        return {one: sum(job.priority is one for job in waiting) for one in Priority}

    def _waiting(self) -> list[Job]:
        return [job for job in self.bot.jobs.values() if job.state in ("waiting", "lost") and job.present]

    def snapshot(self, bot: str) -> Snapshot:
        self._open(bot)
        waiting = self._waiting()
        lines: dict[tuple[str, Priority], int] = defaultdict(int)
        for job in waiting:
            if job.chat is not None:
                lines[job.chat, job.priority] += 1
        long = [(line, length) for line, length in lines.items() if length > 1]
        longest = sorted(long, key=lambda item: (-item[1], item[0][0], item[0][1] != Priority.INTERACTIVE))
        pauses = sorted(
            ((chat.paused_until - self.now, key) for key, chat in self.bot.chats.items()), key=lambda item: -item[0]
        )
        bot_pause = self.bot.paused_until - self.now
        return Snapshot(
            bot=bot,
            sent_last_second=sum(
                1 for at, _ in self.bot.units[False] if at > self.now - policy.SECOND and at >= self.bot.born
            ),
            per_second_limit=policy.per_second(self.policy.rates(bot).free, self._permille()),
            sent_last_minute=sum(1 for at, _ in self.bot.units[False] if at > self.now - policy.MINUTE),
            sending=sum(
                1 for chat in self.bot.chats.values() if chat.sending is not None and chat.lease_end > self.now
            ),
            waiting=self.waiting(bot),
            pauses=tuple(
                Pause(key, timedelta(microseconds=left), "") for left, key in [(bot_pause, None), *pauses] if left > 0
            ),
            longest_lines=tuple(Line(chat, priority, length) for (chat, priority), length in longest[:10]),
            dead=sum(job.state == "dead" for job in self.bot.jobs.values()),
            unreachable=len(self.unreachable(bot)),
            not_kept=Counter(reason for _, _, reason, _ in self.bot.not_kept)
            | ({SHED: self.bot.shed} if self.bot.shed else {})
            | ({SUPERSEDED: self.bot.superseded} if self.bot.superseded else {}),
            dropped=dict(self.bot.dropped),
            outage=timedelta(microseconds=self.now - self.bot.outage.since) if self.bot.outage else None,
            oldest=self._oldest([job for job in waiting if job.chat is not None]),
            slowed=self._slowed()[:10],
            slowed_chats=Counter(slowed.family for slowed in self._slowed()),
        )

    def _recovery(self, pace: LearnedPace) -> int:
        return pace.recovers_from + (pace.permille - 1000) * policy.NARROWING_US_PER_PERMILLE

    def _slowed(self) -> tuple[SlowedChat, ...]:
        found = [
            (
                self._interval(key, family, self._width(pace)),
                max(0, pace.next_at - self.now),
                self._recovery(pace) - self.now,
                key,
                family,
            )
            for (key, family), pace in self.bot.paces.items()
            if self._pace_of(key, family) is not None
        ]
        found.sort(key=lambda one: (-one[2], one[3], one[4]))
        return tuple(
            SlowedChat(key, family, *(timedelta(microseconds=time) for time in times)) for *times, key, family in found
        )

    def _oldest(self, waiting: list[Job]) -> dict[Priority, timedelta]:
        joined: dict[Priority, list[int]] = defaultdict(list)
        for job in waiting:
            joined[job.priority].append(job.joined)
        return {one: timedelta(microseconds=self.now - min(times)) for one, times in joined.items()}

    def close(self) -> None: ...

    # The rules.

    def _wait(self, delay: int, scope: Scope, why: str) -> Wait:
        return Wait(timedelta(microseconds=delay), scope, why)

    def _shed(self, ask: Ask) -> AlreadyDead:
        self.settle(ask, Dead(SHED, kept=False))
        return AlreadyDead(SHED)

    def _admit_typing(self, ask: Ask) -> Decision:
        """Typing goes at once, within its own windows and behind nothing, or not at all."""
        key = self._real(ask.chat)
        its = self.bot.typing[key] if key is not None else Typing()
        windows = self.policy.rates(self.name).typing
        chat = self.bot.chats.get(key or "", Chat())
        ahead = [Priority.INTERACTIVE, *([Priority.BULK] if ask.priority is Priority.BULK else [])]
        if key is not None:
            its.sent = its.sent or self._first_units(windows)
        full = any(sum(at > self.now - span for at in its.sent) >= cap for cap, span in windows)
        hindered = (
            max(self.bot.paused_until, chat.paused_until, its.paused_until) > self.now
            or self.bot.outage is not None
            or (chat.sending is not None and chat.lease_end > self.now)
            or any(self._line(key, priority) for priority in ahead if key is not None)
            or (ask.worth is not None and ask.worth <= timedelta())
            or ((pace := self._pace_of(key, CallFamily.TYPING)) is not None and pace.next_at > self.now)
        )
        if hindered or full:
            return self._shed(ask)
        its.sent.append(self.now)
        self._space_out(ask, key, 1)
        return Go(self._address(ask, key))

    def _real(self, key: str | None) -> str | None:
        real = self.bot.aliases.get(key) if key is not None else None
        if key is None or real is None:
            return key
        if self.bot.names.get(key, self.now + 1) <= self.now:
            chat = self.bot.chats.get(real)
            waiting = any(self._line(real, priority) for priority in Priority)
            if not waiting and (chat is None or chat.sending is None):
                return key
        return real

    def _holds(self, chat: Chat) -> bool:
        return chat.refused is not None and self.now - chat.refused[0] < self.policy.unreachable_us

    def _windows(self, key: str) -> tuple[Window, ...]:
        for name in self.policy.names.get(self.name, ()):
            if (self.name, key) not in self.policy.chats and self.bot.aliases.get(name) == key:
                return self.policy.windows(self.name, name)
        return self.policy.windows(self.name, key)

    def _chat(self, key: str) -> Chat:
        key = self._real(key) or ""
        if key not in self.bot.chats:
            self.bot.chats[key] = chat = Chat()
            chat.units = [(at, "") for at in self._first_units(self._windows(key))]
        return self.bot.chats[key]

    def _first_units(self, windows: tuple[Window, ...]) -> list[int]:
        """What a chat may have received just before the store was made."""
        longest = max(windows, key=lambda window: window.span_us, default=None)
        if longest is None or self.now >= self.bot.born + longest.span_us:
            return []
        step = longest.span_us // longest.cap
        return [self.bot.born - longest.span_us + step * (unit + 1) for unit in range(longest.cap)]

    def _reclaim(self, chat: Chat) -> None:
        if chat.sending is not None and chat.lease_end <= self.now:
            job = self.bot.jobs[chat.sending]
            if job.state == "sending":
                job.state, job.due = "lost", job.lease_end
            chat.sending = None

    def _line(self, key: str | None, priority: Priority) -> list[Job]:
        found = [
            job
            for job in self.bot.jobs.values()
            if job.chat == key and job.priority is priority and job.present and job.state in ("waiting", "lost")
        ]
        return sorted(found, key=lambda job: job.order)

    def _chat_wait(self, job: Job, chat: Chat | None, family: CallFamily) -> Wait | None:
        if chat is None or job.chat is None:
            return None
        now = self.now
        windows = self._windows(job.chat)
        head = self._head(job, chat)
        rival = self._rival(job, chat)
        pace = self._pace_of(job.chat, family)
        next_at = 0 if pace is None else pace.next_at
        ready = max(now, chat.rest_until, next_at, earliest(chat.units, windows, job.units, now))
        if chat.paused_until > now:
            why = "pause"
        elif chat.sending is not None:
            why = "in-flight"
        elif head is not job or rival:
            why = "line"
        elif ready > now:
            why = "rate"
        else:
            return None
        held_until = max(chat.paused_until, self.bot.paused_until)
        if self.bot.outage is not None and self.bot.outage.probe is None:
            held_until = max(held_until, self.bot.outage.probe_at)
        at = max(now, chat.rest_until, min(held_until, now + policy.PAUSE_POLL_US))
        if head is not job:
            at = max(at, head.due)
        units = list(chat.units)
        for other in self._ahead(job, chat, rival):
            for _ in range(other.units):
                at = earliest(units, windows, 1, at)
                units.append((at, other.id))
        at = max(next_at, earliest(units, windows, job.units, at))
        return self._wait(max(at - now, 1 if why == "rate" else policy.PLACE_US), Scope.CHAT, why)

    def _ahead(self, job: Job, chat: Chat, rival: bool) -> list[Job]:
        line = self._line(job.chat, job.priority)
        ahead = line[: line.index(job)]
        if rival and job.priority is Priority.BULK:
            interactive = self._line(job.chat, Priority.INTERACTIVE)
            ahead = interactive[: policy.INTERACTIVE_TURNS - chat.overtaken] + ahead
        elif rival:
            ahead = self._line(job.chat, Priority.BULK)[:1] + ahead
        return ahead

    def _head(self, job: Job, chat: Chat) -> Job:
        now = self.now
        line = self._line(job.chat, job.priority)
        head = line[0]
        since = chat.missing_since[job.priority]
        if head is job or head.due + policy.LATE_US >= now:
            chat.missing_since[job.priority] = 0
        elif not since:
            chat.missing_since[job.priority] = now
        elif since + policy.MISSING_GRACE_US <= now:
            chat.missing_since[job.priority] = 0
            for other in line[: line.index(job)]:
                if other.due < now - policy.MISSING_GRACE_US:
                    other.present = False
            head = self._line(job.chat, job.priority)[0]
        return head

    def _rival(self, job: Job, chat: Chat) -> bool:
        """Returns whether the chat's other line goes first."""
        bulk_asks = job.priority is Priority.BULK
        other = self._line(job.chat, Priority.INTERACTIVE if bulk_asks else Priority.BULK)
        if not other or bulk_asks is (chat.overtaken >= policy.INTERACTIVE_TURNS):
            return False
        free = earliest(chat.units, self._windows(job.chat or ""), 1, 0)
        soon = max(self.now, free, chat.rest_until, chat.paused_until) + policy.CLAIM_US
        return other[0].state == "waiting" and self.now - policy.LATE_US <= other[0].due <= soon

    def _permille(self) -> int:
        return policy.learned_permille(self.bot.permille, self.bot.slowed_at, self.now)

    def _pace(self, paid: bool) -> Pace | None:
        pace = self.policy.rates(self.name).pace(paid)
        return pace.slowed(self._permille()) if pace is not None else None

    def _bot_wait(self, ask: Ask, job: Job) -> Wait | None:
        bot, now = self.bot, self.now
        if ask.charge is Charge.ANSWER:
            return None
        cost = policy.bot_cost(ask)
        pace = self._pace(ask.paid)
        if pace is not None and cost and not job.first_asked_bot:
            job.first_asked_bot = now + (policy.AGING_US if job.priority is Priority.BULK else 0)
            job.bot_units = cost
        if bot.paused_until > now:
            return self._wait(min(bot.paused_until - now, policy.PAUSE_POLL_US), Scope.BOT, "pause")
        if bot.outage is not None and bot.outage.probe_at > now:
            left = bot.outage.probe_at - now
            poll = policy.PROBE_POLL_US if bot.outage.probe is not None else left
            return self._wait(min(left, poll), Scope.BOT, "outage")
        if pace is None or not cost:
            return None
        ahead = sum(
            other.bot_units
            for other in bot.jobs.values()
            if other.first_asked_bot
            and other.state == "waiting"
            and other.paid == job.paid
            and (other.first_asked_bot, other.id) < (job.first_asked_bot, job.id)
            and other.bot_until >= now - policy.WAITER_GRACE_US
        )
        at = max(bot.arrival[ask.paid], now) - pace.tolerance_us + ahead * pace.interval_us
        if pace.window is not None:
            units = list(bot.units[ask.paid])
            when = now
            for _ in range(ahead):
                when = earliest(units, (pace.window,), 1, when)
                units.append((when, ""))
            at = max(at, earliest(units, (pace.window,), cost, when))
        return self._wait(at - now, Scope.BOT, "rate") if at > now else None

    def _pause_bot(self, until: int) -> None:
        if until > self.bot.paused_until:
            self.bot.paused_until = until
            for paid in (False, True):
                if (pace := self.policy.rates(self.name).pace(paid)) is not None:
                    self.bot.arrival[paid] = max(self.bot.arrival[paid], until + pace.tolerance_us)

    def _go(self, ask: Ask, job: Job, chat: Chat | None) -> Go:
        bot, now = self.bot, self.now
        job.state, job.since, job.due, job.lease_end = "sending", now, now, now + us(ask.lease)
        job.first_asked_bot, job.bot_units = 0, policy.bot_cost(ask)
        job.grants += 1
        probe = bot.outage is not None and ask.charge is not Charge.ANSWER
        if probe:
            bot.outage.failed += 1 if bot.outage.probe is not None else 0
            bot.outage.probe, bot.outage.probe_at = now, job.lease_end
        bot.granted = now
        if (pace := self._pace(ask.paid)) is not None:
            arrival = max(bot.arrival[ask.paid], now)
            if pace.window is not None and job.bot_units:
                opened = earliest(bot.units[ask.paid], (pace.window,), job.bot_units, 0)
                if opened:
                    arrival = max(arrival, opened + pace.tolerance_us - pace.interval_us)
            bot.arrival[ask.paid] = arrival + job.bot_units * pace.interval_us
            if pace.window is not None:
                bot.units[ask.paid] += [(at, grant_of(job)) for at in unit_times((pace.window,), job.bot_units, now)]
        if chat is None:
            return Go(self._address(ask, self._real(ask.chat)), now, probe)
        windows = self._windows(job.chat or "")
        if windows:
            chat.units += [(at, grant_of(job)) for at in unit_times(windows, job.units, now)]
        chat.sending, chat.sending_since, chat.lease_end = job.id, now, job.lease_end
        bulk_waits = bool(self._line(job.chat, Priority.BULK))
        chat.overtaken = chat.overtaken + 1 if bulk_waits and job.priority is Priority.INTERACTIVE else 0
        self._space_out(ask, job.chat, job.units)
        return Go(self._address(ask, job.chat), now, probe)

    def _address(self, ask: Ask, chat: str | None) -> str | None:
        return ask.chat if ask.chat is not None and ask.chat.startswith("@") else chat

    def _learn(self, ask: Ask, job: Job, settlement: Settlement) -> None:
        """Returns whether Telegram answers."""
        silent = isinstance(settlement, Released) or (isinstance(settlement, Retrying | Dead) and settlement.unanswered)
        if ask.charge is Charge.ANSWER and silent:
            return
        bot = self.bot
        outage = bot.outage
        is_probe = outage is not None and outage.probe == job.since
        if isinstance(settlement, Retrying | Dead) and settlement.unanswered:
            if outage is None:
                bot.unanswered.append((job.chat, self.now))
                lately = {chat for chat, at in bot.unanswered if self.now - at < policy.MINUTE}
                if len(lately) == policy.OUTAGE_CHATS:
                    bot.outage = Outage(self.now, self.now + policy.SECOND)
            elif is_probe:
                outage.failed += 1
                outage.probe = None
                outage.probe_at = self.now + min(policy.SECOND * 2**outage.failed, 30 * policy.SECOND)
        elif isinstance(settlement, Released):
            if outage is not None and is_probe:
                outage.probe, outage.probe_at = None, self.now
        elif outage is None:
            bot.unanswered = []
        elif job.since > outage.since:
            bot.outage, bot.unanswered = None, []
            for paid in (False, True):
                if (pace := self.policy.rates(self.name).pace(paid)) is not None:
                    bot.arrival[paid] = max(bot.arrival[paid], self.now + pace.tolerance_us)

    def _end_call(self, job: Job) -> None:
        chat = self.bot.chats.get(job.chat or "")
        if chat is not None and chat.sending == job.id:
            chat.sending = None
            chat.rest_until = self.now + policy.rest_after(self.now - job.since)

    def _count_later(self, ask: Ask, job: Job, settlement: Settlement) -> None:
        taken = self.now - job.since
        late = min(us(settlement.late), taken) if isinstance(settlement, Sent) else 0
        chat = self.bot.chats.get(job.chat or "")
        logs = [(chat.units, taken if ask.upload else late)] if chat is not None else []
        if not ask.upload:
            logs.append((self.bot.units[job.paid], min(late, policy.BOT_LATE_MOST_US)))
        pace = self._pace_of(job.chat, policy.family_of(ask)) if chat is not None else None
        if pace is not None and pace.grant == job.since:
            pace.next_at += taken if ask.upload else late
        for units, later in logs:
            units[:] = sorted((at + later if grant == grant_of(job) else at, grant) for at, grant in units)

    def _refund(self, job: Job) -> None:
        bot = self.bot
        pace = self.policy.rates(self.name).pace(job.paid)
        if pace is not None:
            bot.arrival[job.paid] -= job.bot_units * pace.interval_us
            bot.units[job.paid] = [unit for unit in bot.units[job.paid] if unit[1] != grant_of(job)]
        chat = self.bot.chats.get(job.chat or "")
        if chat is not None:
            chat.units = [unit for unit in chat.units if unit[1] != grant_of(job)]
