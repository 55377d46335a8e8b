"""Telegram's flood limits, as strict as they can be read: sliding windows, judged at arrival.

Three windows are over a call: the bot's (30 in any second; 1000 when it pays), the chat's (1 in any second) and, for
groups and channels, the group's (20 in any 60 seconds). A call passes when it fits into all of them, and is then
charged to all of them. A call that does not fit is charged to none; it is told how many seconds to wait, and its
scope (the bot or the chat) is in a *wait* for so long. Whoever calls into a wait is refused though the window may
have room, and, once the calls that were on their way have had time to arrive, makes the wait longer. A wait
never reaches further than ``longest_wait_seconds`` ahead.

Invariant: no window of a rate's length, wherever it starts, holds more than the rate's count, save for a single call
that costs more than that by itself. Such a call passes when its window is empty and then blocks it for as many
windows as it fills, so that the rate still holds on average.

State: windows and waits by scope, swept of what is over, so that memory follows the chats of the last minute.
Times are seconds of whatever monotonic clock the caller has. One thread only.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Final

JUDGEMENTS_PER_SWEEP: Final = 4096


@dataclass(frozen=True, slots=True)
class Rate:
    """At most ``count`` in any ``per_seconds``."""

    count: int
    per_seconds: float

    def __post_init__(self) -> None:
        if self.count < 1 or self.per_seconds <= 0:
            raise ValueError(
                f"A rate lets at least 1 through in a time above 0 s, not {self.count} in {self.per_seconds}."
            )


@dataclass(frozen=True, slots=True)
class FloodLimits:
    """The rates in force; None switches one off, ``enabled=False`` all of them (imposed waits stay)."""

    enabled: bool = True
    bot: Rate | None = Rate(30, 1.0)
    paid: Rate | None = Rate(1000, 1.0)
    chat: Rate | None = Rate(1, 1.0)
    group: Rate | None = Rate(20, 60.0)
    growth_seconds: float = 1.0
    """By how much a call into a wait makes it longer. 0 leaves it as it is."""
    grace_seconds: float = 0.5
    """Calls so soon after a refusal were on their way already and change nothing."""
    longest_wait_seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class CallCost:
    """What one call is charged to. ``chat`` covers the chat's window and, in a group, the group's."""

    cost: int = 1
    chat: bool = False
    paid: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a call passes. ``by`` names the limit that refused it: `bot`, `paid`, `chat`, `group`, `wait`."""

    by: str
    retry_after: int = 0

    @property
    def passes(self) -> bool:
        return self.retry_after == 0


PASSES: Final = Verdict("ok")
FREE: Final = Verdict("free")
OFF: Final = Verdict("off")

LimitScope = tuple[int, int | None]
"""A bot, or a bot's chat."""


class SlidingWindow:
    """What was let through lately under one rate."""

    __slots__ = ("_charges", "_used")

    def __init__(self) -> None:
        self._charges: deque[tuple[float, int]] = deque()
        self._used = 0

    def wait_seconds(self, rate: Rate, cost: int, now: float) -> float:
        """How long until ``cost`` fits; 0 when it does now."""
        self._forget_what_is_over(rate, now)
        missing = min(self._used + cost - rate.count, self._used)
        if missing <= 0:
            return 0.0
        for at, charged in self._charges:
            missing -= charged
            if missing <= 0:
                return at + rate.per_seconds - now
        raise AssertionError("what is used is the sum of what is charged")

    def charge(self, rate: Rate, cost: int, now: float) -> None:
        """Book a call that passed. What is over the rate is booked in the windows to come."""
        at = now
        while cost > 0:
            part = min(cost, rate.count)
            self._charges.append((at, part))
            self._used += part
            cost -= part
            at += rate.per_seconds

    def is_empty(self, rate: Rate, now: float) -> bool:
        self._forget_what_is_over(rate, now)
        return not self._charges

    def _forget_what_is_over(self, rate: Rate, now: float) -> None:
        charges = self._charges
        while charges and charges[0][0] + rate.per_seconds <= now:
            self._used -= charges.popleft()[1]


@dataclass(slots=True)
class _Wait:
    until: float
    grown_at: float
    """When it began or was last made longer: calls within the grace after that change nothing."""


class FloodControl:
    """Judges calls at arrival, and remembers what it let through."""

    def __init__(self, limits: FloodLimits) -> None:
        self._limits = limits
        self._windows: dict[tuple[str, LimitScope], SlidingWindow] = {}
        self._waits: dict[LimitScope, _Wait] = {}
        self._until_sweep = JUDGEMENTS_PER_SWEEP

    @property
    def limits(self) -> FloodLimits:
        return self._limits

    def apply(self, limits: FloodLimits) -> None:
        """Go on under other limits. What was let through before still counts."""
        self._limits = limits

    def impose(self, scope: LimitScope, seconds: float, now: float) -> None:
        """Put a bot or a chat into a wait, as if it had called too often."""
        self._waits[scope] = _Wait(now + seconds, now)

    def judge(self, bot_id: int, chat_id: int | None, charge: CallCost | None, now: float) -> Verdict:
        """Let a call through and book it, or say how long to wait. ``charge`` None is a call no limit is on."""
        if charge is None:
            return FREE
        self._sweep_now_and_then(now)
        chat_id = chat_id if charge.chat else None
        refused = self._refused_by_wait((bot_id, None), now) or self._refused_by_wait((bot_id, chat_id), now)
        if refused:
            return refused
        if not self._limits.enabled:
            return OFF
        return self._judge_by_windows(bot_id, chat_id, charge, now)

    def _judge_by_windows(self, bot_id: int, chat_id: int | None, charge: CallCost, now: float) -> Verdict:
        over = self._rates_over(bot_id, chat_id, charge)
        longest, by, scope = 0.0, "", (bot_id, chat_id)
        for name, rate, key in over:
            wait = self._window(name, key).wait_seconds(rate, charge.cost, now)
            if wait > longest:
                longest, by, scope = wait, name, key
        if by:
            return self._refuse(scope, by, longest, now)
        for name, rate, key in over:
            self._window(name, key).charge(rate, charge.cost, now)
        return PASSES

    def _rates_over(self, bot_id: int, chat_id: int | None, charge: CallCost) -> list[tuple[str, Rate, LimitScope]]:
        limits = self._limits
        over: list[tuple[str, Rate, LimitScope]] = []
        budget, rate = ("paid", limits.paid) if charge.paid else ("bot", limits.bot)
        if rate:
            over.append((budget, rate, (bot_id, None)))
        if charge.chat and chat_id is not None:
            if limits.chat:
                over.append(("chat", limits.chat, (bot_id, chat_id)))
            if limits.group and chat_id < 0:
                over.append(("group", limits.group, (bot_id, chat_id)))
        return over

    def _window(self, name: str, scope: LimitScope) -> SlidingWindow:
        window = self._windows.get((name, scope))
        if window is None:
            window = self._windows[(name, scope)] = SlidingWindow()
        return window

    def _refuse(self, scope: LimitScope, by: str, wait_seconds: float, now: float) -> Verdict:
        seconds = max(1, math.ceil(wait_seconds))
        self._waits[scope] = _Wait(now + seconds, now)
        return Verdict(by, seconds)

    def _refused_by_wait(self, scope: LimitScope, now: float) -> Verdict | None:
        wait = self._waits.get(scope)
        if wait is None:
            return None
        if wait.until <= now:
            del self._waits[scope]
            return None
        self._grow(wait, now)
        return Verdict("wait", max(1, math.ceil(wait.until - now)))

    def _grow(self, wait: _Wait, now: float) -> None:
        if now - wait.grown_at < self._limits.grace_seconds:
            return
        furthest = max(now + self._limits.longest_wait_seconds, wait.until)
        wait.until = min(wait.until + self._limits.growth_seconds, furthest)
        wait.grown_at = now

    def _sweep_now_and_then(self, now: float) -> None:
        self._until_sweep -= 1
        if self._until_sweep > 0:
            return
        self._until_sweep = JUDGEMENTS_PER_SWEEP
        self._waits = {scope: wait for scope, wait in self._waits.items() if wait.until > now}
        self._windows = {key: window for key, window in self._windows.items() if self._counts(key[0], window, now)}

    def _counts(self, name: str, window: SlidingWindow, now: float) -> bool:
        rate: Rate | None = getattr(self._limits, name)
        return rate is not None and not window.is_empty(rate, now)
