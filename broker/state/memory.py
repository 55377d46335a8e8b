"""What a process remembers of the store, so that a store that has gone back in time is noticed and told.

Overview. A store counts its writes for each bot and names the bot's *epoch*, which is explained in
:mod:`floodgate.broker.admission.rebuilding`. A process remembers the latest of both that it has seen. A store that is
behind has forgotten writes that this process relied on; the first process that finds it begins a new epoch. Any process
that finds a new epoch first tells the store what it remembers, then makes its call.

State: one entry for each job of the last :data:`REMEMBERED_SECONDS`, in the order of their first asks; each call that
changed something else; and the paces that chats learned from 429s that this process got, until they have recovered. At
most :data:`MOST_REMEMBERED` of each, of up to 2 kB each with the results of sends. Threads may share it: each of its
steps is one operation of a dict or a deque.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, NamedTuple

from floodgate.broker.admission.contract import (
    FLOOD_WAIT,
    AlreadyDead,
    AlreadySent,
    Ask,
    CallFamily,
    Dead,
    Go,
    Released,
    Retrying,
    Scope,
    Sent,
    Settlement,
    Wait,
)
from floodgate.broker.admission.policy import (
    PAUSE_MARGIN_US,
    SLOWABLE,
    is_typing,
    narrowed_permille,
    recovered_at,
    wider,
)
from floodgate.broker.state.calls import AdmissionCall

# A replica is rarely behind by more; without load, this holds everything that happened.
REMEMBERED_SECONDS: Final = 60.0
MOST_REMEMBERED: Final = 10_000

_PAUSE_MARGIN: Final = timedelta(microseconds=PAUSE_MARGIN_US)
# Calls that can be repeated as they were.
_REPEATABLE: Final = frozenset({"cancel", "cancel_campaign", "mark_unreachable", "heard_from", "migrate"})


class Seen(NamedTuple):
    """The latest epoch and number of writes of a bot that a process has seen; zeros before its first call."""

    epoch: int = 0
    writes: int = 0


@dataclass(slots=True)
class _Job:
    """The last that is known of a job: how it ended; or when it asks again; or, with a grant, when its lease ends."""

    ask: Ask
    noted_at: float
    ended: Sent | Dead | None = None
    until: float = 0.0
    grant: int | None = None


class _Pace(NamedTuple):
    """The learned pace of a family in a chat, as :class:`~floodgate.broker.admission.rows.SlowedRow`, on this process's
    monotonic clock in microseconds."""

    permille: int
    slowed_at: int


class StoreMemory:
    """The memory of one process, for one store."""

    def __init__(self) -> None:
        self._seen: dict[str, Seen] = {}
        self._jobs: OrderedDict[tuple[str, str], _Job] = OrderedDict()
        self._others: deque[tuple[float, AdmissionCall]] = deque(maxlen=MOST_REMEMBERED)
        self._paces: OrderedDict[tuple[str, str, CallFamily], _Pace] = OrderedDict()

    def seen(self, bot: str) -> Seen:
        """The latest of a bot's store that this process has seen."""
        return self._seen.get(bot, _NOTHING)

    def look(self, bot: str, epoch: int, writes: int) -> None:
        """Note what a store that answered was like."""
        self._seen[bot] = max(Seen(epoch, writes), self.seen(bot))

    def note(self, call: AdmissionCall, result: object) -> None:
        """Remember a call that was carried out."""
        match call.method:
            case "admit" | "renew_unsettled":
                self._note_ask(call.arguments[0], result)
            case "settle":
                self._note_settlement(*call.arguments)
            case "pause" | "too_many_requests" | "resume":
                self._note_pause(call, result)
                self._note_pace(call, result)
            case method if method in _REPEATABLE:
                self._others.append((time.monotonic(), call))

    def of(self, bot: str) -> list[AdmissionCall]:
        """The calls that tell a store what this process remembers of a bot, in order."""
        now = time.monotonic()
        since = now - REMEMBERED_SECONDS
        jobs = [job for (its, _), job in list(self._jobs.items()) if its == bot and job.noted_at >= since]
        return [_telling(job, now) for job in jobs] + list(self._other_calls(bot, now)) + list(self._known_paces(bot))

    def _note_ask(self, ask: Ask, result: object) -> None:
        now = time.monotonic()
        match result:
            case Wait(delay=delay):
                self._keep(_Job(ask, now, until=now + delay.total_seconds()))
            case Go(grant=int(grant)):
                self._keep(_Job(ask, now, until=now + ask.lease.total_seconds(), grant=grant))
            case AlreadySent(result=found):
                self._keep(_Job(ask, now, ended=Sent(found)))
            case AlreadyDead(reason=reason):
                self._keep(_Job(ask, now, ended=Dead(reason)))

    def _note_settlement(self, ask: Ask, settlement: Settlement, _grant: int | None) -> None:
        now = time.monotonic()
        match settlement:
            case Sent() | Dead():
                self._keep(_Job(ask, now, ended=settlement))
            case Retrying(delay=delay):
                self._keep(_Job(ask, now, until=now + delay.total_seconds()))
            case Released():
                self._keep(_Job(ask, now, until=now))

    def _keep(self, job: _Job) -> None:
        if is_typing(job.ask):  # has no place and no record
            return
        self._jobs[job.ask.bot, job.ask.job_id] = job  # keeps the place of an earlier entry
        since = job.noted_at - REMEMBERED_SECONDS
        while len(self._jobs) > MOST_REMEMBERED or next(iter(self._jobs.values())).noted_at < since:
            self._jobs.popitem(last=False)

    def _note_pause(self, call: AdmissionCall, result: object) -> None:
        now = time.monotonic()
        match call.method, call.arguments:
            case "too_many_requests", (chat, retry_after, family) if family is not CallFamily.TYPING:
                chats = [chat] if chat is not None else []
                paused = [*chats, None] if result is Scope.BOT else chats
                for each in paused:
                    pause = AdmissionCall("pause", call.bot, (each, retry_after + _PAUSE_MARGIN, FLOOD_WAIT))
                    self._others.append((now, pause))
            case (("pause" | "resume"), _):
                self._others.append((now, call))

    def _note_pace(self, call: AdmissionCall, result: object) -> None:
        """Learn from a 429 what the store learns from it, as far as this process knows."""
        if call.method != "too_many_requests" or result is not Scope.CHAT:
            return
        chat, retry_after, family = call.arguments
        if chat is None or family not in SLOWABLE:
            return
        now = _monotonic_us()
        permille, slowed_at = self._paces.pop((call.bot, chat, family), _FULL_PACE)
        if slowed_at <= now:
            permille = wider(narrowed_permille(permille, slowed_at, now))
        until = now + (retry_after + _PAUSE_MARGIN) // _MICROSECOND
        self._paces[call.bot, chat, family] = _Pace(permille, max(slowed_at, until))
        while len(self._paces) > MOST_REMEMBERED or recovered_at(*next(iter(self._paces.values()))) <= now:
            self._paces.popitem(last=False)

    def _known_paces(self, bot: str) -> Iterator[AdmissionCall]:
        now = _monotonic_us()
        for (its, chat, family), (permille, slowed_at) in list(self._paces.items()):
            if its == bot and recovered_at(permille, slowed_at) > now:
                delay = (slowed_at - now) * _MICROSECOND
                yield AdmissionCall("restore_pace", bot, (chat, family, permille, delay))

    def _other_calls(self, bot: str, now: float) -> Iterator[AdmissionCall]:
        for at, call in list(self._others):
            if call.bot != bot:
                continue
            if call.method != "pause":
                if now - at < REMEMBERED_SECONDS:
                    yield call
                continue
            chat, duration, why = call.arguments
            left = duration - timedelta(seconds=now - at)
            if left > timedelta():
                yield AdmissionCall("pause", bot, (chat, left, why))


_NOTHING: Final = Seen()
_FULL_PACE: Final = _Pace(1000, 0)
_MICROSECOND: Final = timedelta(microseconds=1)


def _monotonic_us() -> int:
    return time.monotonic_ns() // 1000


def _telling(job: _Job, now: float) -> AdmissionCall:
    if job.ended is not None:
        return AdmissionCall("settle", job.ask.bot, (job.ask, job.ended, None))
    return AdmissionCall("rejoin", job.ask.bot, (job.ask, timedelta(seconds=max(0.0, job.until - now)), job.grant))
