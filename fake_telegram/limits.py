"""Telegram's flood limits in their strictest interpretation: sliding windows, checked at arrival.

A call is subject to three windows: the bot's (30 in any second; 1000 if it is paid), the chat's (1 in any second) and,
for groups and channels, the group's (20 in any 60 seconds). Typing and drafts are subject to two windows of their own
in the chat (20 in any 5 seconds, 40 in any 30) and to no other. A call passes if it fits into all of them, and is then
charged to all of them. A call that does not fit is charged to none; the answer says how many seconds to wait, and for
that time its scope (the bot, the chat, or the chat's typing) is in a *wait*. A call during a wait is refused even if
the window has room, and makes the wait longer, unless it comes so soon that it was already on its way. It makes the
next wait of its scope longer, too, by ``repeat_factor`` for each wait in which the caller went on, until the caller has
kept to its waits for ``forgiven_seconds``. None of this makes a wait end more than ``longest_wait_seconds`` ahead.

Two limits are off unless a test asks for them, because Telegram gives no numbers: one on the edits in a chat, and a
cool-down after several typing calls.

Invariant: no window of a rate's length, wherever it starts, holds more than the rate's count, except for a single call
that costs more than that by itself. Such a call passes when its window is empty and then blocks it for as many
windows as it fills, so that the rate still holds on average.

State: windows and waits by scope. Expired ones are swept, so that memory is proportional to the chats of the last
minute. Times are in seconds on the caller's monotonic clock. Not thread-safe.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Final

JUDGEMENTS_PER_SWEEP: Final = 4096


@dataclass(frozen=True, slots=True)
class Rate:
    """A limit of ``count`` in any ``per_seconds``."""

    count: int
    per_seconds: float

    def __post_init__(self) -> None:
        if self.count < 1 or self.per_seconds <= 0:
            raise ValueError(
                f"A rate needs a count of at least 1 and a time above 0 s, not {self.count} in {self.per_seconds} s."
            )


@dataclass(frozen=True, slots=True)
class FloodLimits:
    """The rates in force. None turns one off, ``enabled=False`` turns off all (imposed waits stay)."""

    enabled: bool = True
    bot: Rate | None = Rate(30, 1.0)
    paid: Rate | None = Rate(1000, 1.0)
    chat: Rate | None = Rate(1, 1.0)
    group: Rate | None = Rate(20, 60.0)
    edits: Rate | None = None
    """Edits in one chat, which count for ``chat`` and ``group`` as well."""
    typing: Rate | None = Rate(20, 5.0)
    long_typing: Rate | None = Rate(40, 30.0)
    cool_down: Rate | None = None
    """After so many typing calls and drafts in one chat without a pause of that length, none for so many seconds."""
    growth_seconds: float = 1.0
    """Time that a call during a wait adds to it."""
    grace_seconds: float = 0.5
    """Time after a refusal in which calls do not extend the wait, as they were already on their way."""
    longest_wait_seconds: float = 60.0
    repeat_factor: float = 2.0
    """Each wait in which the caller went on multiplies the next one by this. 1 turns it off."""
    forgiven_seconds: float = 60.0
    """Time after the last call during a wait in which the caller must keep to its waits for that to be forgotten."""

    def __post_init__(self) -> None:
        if self.repeat_factor < 1:
            raise ValueError(f"repeat_factor is at least 1, which turns it off, not {self.repeat_factor}.")


@dataclass(frozen=True, slots=True)
class CallCost:
    """The cost of a call and the windows it is charged to. ``chat`` means the chat's and, in a group, the group's;
    ``edit`` means that of edits, too; ``typing`` means those of the chat's typing, and no others."""

    cost: int = 1
    chat: bool = False
    paid: bool = False
    typing: bool = False
    edit: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """The decision about a call. ``by`` names the limit that refused it: `bot`, `paid`, `chat`, `group`, `edits`,
    `typing`, `long_typing`, `cool_down`, `wait`."""

    by: str
    retry_after: int = 0

    @property
    def passes(self) -> bool:
        """Whether the call passes."""
        return self.retry_after == 0


PASSES: Final = Verdict("ok")
FREE: Final = Verdict("free")
OFF: Final = Verdict("off")

LimitScope = tuple[int, int | None, bool]
"""A bot, or a bot's chat; and whether only the typing there is meant."""


class SlidingWindow:
    """The recently accepted calls under one rate."""

    __slots__ = ("_charges", "_used")

    def __init__(self) -> None:
        self._charges: deque[tuple[float, int]] = deque()
        self._used = 0

    def wait_seconds(self, rate: Rate, cost: int, now: float) -> float:
        """Return the time in seconds until ``cost`` fits; 0 if it fits now."""
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
        """Charge an accepted call. Cost beyond the rate is charged to the following windows."""
        at = now
        while cost > 0:
            part = min(cost, rate.count)
            self._charges.append((at, part))
            self._used += part
            cost -= part
            at += rate.per_seconds

    def is_empty(self, rate: Rate, now: float) -> bool:
        """Return whether nothing is charged now."""
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
    """When the wait began or was last extended: calls within the grace time after that do not extend it."""
    ignored: bool = False
    """Whether the caller went on during it."""


@dataclass(slots=True)
class _Tally:
    """How many times something happened without a break, and when last."""

    times: int
    last_at: float


class FloodControl:
    """Decides about calls at arrival, and records the accepted ones."""

    def __init__(self, limits: FloodLimits) -> None:
        self._limits = limits
        self._windows: dict[tuple[str, LimitScope], SlidingWindow] = {}
        self._waits: dict[LimitScope, _Wait] = {}
        self._ignored: dict[LimitScope, _Tally] = {}  # waits in which the caller went on
        self._runs: dict[LimitScope, _Tally] = {}  # typing calls since the last cool-down
        self._until_sweep = JUDGEMENTS_PER_SWEEP

    @property
    def limits(self) -> FloodLimits:
        """The limits in force."""
        return self._limits

    def apply(self, limits: FloodLimits) -> None:
        """Change the limits. Calls accepted before still count."""
        self._limits = limits

    def impose(self, bot_id: int, chat_id: int | None, seconds: float, now: float) -> None:
        """Impose a wait on a bot or a chat, as if it had called too often."""
        self._waits[bot_id, chat_id, False] = _Wait(now + seconds, now)

    def judge(self, bot_id: int, chat_id: int | None, charge: CallCost | None, now: float) -> Verdict:
        """Accept and charge a call, or return how long to wait. A call whose ``charge`` is None has no limit."""
        if charge is None:
            return FREE
        self._sweep_now_and_then(now)
        chat_id = chat_id if charge.chat or charge.typing else None
        for scope in ((bot_id, None, False), (bot_id, chat_id, charge.typing)):
            if refused := self._refused_by_wait(scope, now):
                return refused
        if not self._limits.enabled:
            return OFF
        return self._judge_by_windows(bot_id, chat_id, charge, now)

    def _judge_by_windows(self, bot_id: int, chat_id: int | None, charge: CallCost, now: float) -> Verdict:
        if charge.typing and (cool_down := self._cool_down_seconds((bot_id, chat_id, True), now)):
            return self._refuse((bot_id, chat_id, True), "cool_down", cool_down, now)
        over = self._rates_over(bot_id, chat_id, charge)
        longest, by, scope = 0.0, "", (bot_id, chat_id, False)
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
        if charge.typing:
            rates = (("typing", limits.typing), ("long_typing", limits.long_typing))
            return [(name, rate, (bot_id, chat_id, True)) for name, rate in rates if rate and chat_id is not None]
        over: list[tuple[str, Rate, LimitScope]] = []
        budget, rate = ("paid", limits.paid) if charge.paid else ("bot", limits.bot)
        if rate:
            over.append((budget, rate, (bot_id, None, False)))
        if charge.chat and chat_id is not None:
            if limits.chat:
                over.append(("chat", limits.chat, (bot_id, chat_id, False)))
            if limits.group and chat_id < 0:
                over.append(("group", limits.group, (bot_id, chat_id, False)))
            if limits.edits and charge.edit:
                over.append(("edits", limits.edits, (bot_id, chat_id, False)))
        return over

    def _window(self, name: str, scope: LimitScope) -> SlidingWindow:
        window = self._windows.get((name, scope))
        if window is None:
            window = self._windows[(name, scope)] = SlidingWindow()
        return window

    def _refuse(self, scope: LimitScope, by: str, wait_seconds: float, now: float) -> Verdict:
        seconds = max(1, math.ceil(self._prolonged(scope, wait_seconds, now)))
        self._waits[scope] = _Wait(now + seconds, now)
        return Verdict(by, seconds)

    def _refused_by_wait(self, scope: LimitScope, now: float) -> Verdict | None:
        wait = self._waits.get(scope)
        if wait is None:
            return None
        if wait.until <= now:
            del self._waits[scope]
            return None
        self._grow(scope, wait, now)
        return Verdict("wait", max(1, math.ceil(wait.until - now)))

    def _prolonged(self, scope: LimitScope, wait_seconds: float, now: float) -> float:
        """Return the wait of a scope, which is longer if the caller went on during earlier ones."""
        tally, limits = self._ignored.get(scope), self._limits
        if tally is None or now - tally.last_at >= limits.forgiven_seconds:
            return wait_seconds
        # Beyond 2¹⁶ any wait is at its bound.
        longer = wait_seconds * limits.repeat_factor ** min(tally.times, 16)
        return max(wait_seconds, min(longer, limits.longest_wait_seconds))

    def _cool_down_seconds(self, scope: LimitScope, now: float) -> float:
        """Count a typing call, and return the cool-down that it begins; 0 if it passes."""
        rate = self._limits.cool_down
        if rate is None or _again(self._runs, scope, rate.per_seconds, now).times <= rate.count:
            return 0.0
        del self._runs[scope]
        return rate.per_seconds

    def _grow(self, scope: LimitScope, wait: _Wait, now: float) -> None:
        if now - wait.grown_at < self._limits.grace_seconds:
            return
        if wait.ignored:
            self._ignored[scope].last_at = now
        else:
            wait.ignored = True
            _again(self._ignored, scope, self._limits.forgiven_seconds, now)
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
        for tallies in (self._ignored, self._runs):
            for scope in [each for each, tally in tallies.items() if now - tally.last_at >= self._memory_seconds()]:
                if scope not in self._waits:
                    del tallies[scope]

    def _memory_seconds(self) -> float:
        cool_down = self._limits.cool_down
        return max(self._limits.forgiven_seconds, cool_down.per_seconds if cool_down else 0.0)

    def _counts(self, name: str, window: SlidingWindow, now: float) -> bool:
        rate: Rate | None = getattr(self._limits, name)
        return rate is not None and not window.is_empty(rate, now)


def _again(tallies: dict[LimitScope, _Tally], scope: LimitScope, break_seconds: float, now: float) -> _Tally:
    """Count once more for a scope; anew after a break."""
    known = tallies.get(scope)
    times = known.times + 1 if known is not None and now - known.last_at < break_seconds else 1
    tallies[scope] = tally = _Tally(times, now)
    return tally
