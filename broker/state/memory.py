"""What a process remembers of the store, so that a store that has gone back in time is noticed and told.

Overview. A store counts its writes for each bot and names the bot's *epoch*, which is explained in
:mod:`floodgate.broker.admission.rebuilding`. A process remembers the latest of both that it has seen. A store that is
behind has forgotten writes that this process relied on; the first process that finds it begins a new epoch. Any process
that finds a new epoch first tells the store what it remembers, then makes its call.

State: one entry for each job of the last :data:`REMEMBERED_SECONDS`, in the order of their first asks, and each call
that changed something else. At most :data:`MOST_REMEMBERED` of either, of about 2 kB each with the results of sends.
Threads may share it: each of its steps is one operation of a dict or a deque.
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
from floodgate.broker.admission.policy import PAUSE_MARGIN_US, is_typing
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


class StoreMemory:
    """The memory of one process, for one store."""

    def __init__(self) -> None:
        self._seen: dict[str, Seen] = {}
        self._jobs: OrderedDict[tuple[str, str], _Job] = OrderedDict()
        self._others: deque[tuple[float, AdmissionCall]] = deque(maxlen=MOST_REMEMBERED)

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
            case method if method in _REPEATABLE:
                self._others.append((time.monotonic(), call))

    def of(self, bot: str) -> list[AdmissionCall]:
        """The calls that tell a store what this process remembers of a bot, in order."""
        now = time.monotonic()
        since = now - REMEMBERED_SECONDS
        jobs = [job for (its, _), job in list(self._jobs.items()) if its == bot and job.noted_at >= since]
        return [_telling(job, now) for job in jobs] + list(self._other_calls(bot, now))

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


def _telling(job: _Job, now: float) -> AdmissionCall:
    if job.ended is not None:
        return AdmissionCall("settle", job.ask.bot, (job.ask, job.ended, None))
    return AdmissionCall("rejoin", job.ask.bot, (job.ask, timedelta(seconds=max(0.0, job.until - now)), job.grant))
