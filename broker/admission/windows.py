"""Sliding windows and pacing: the arithmetic of limits, without a store or a clock.

A *log* is a list of unit times, oldest first: one entry per message, so an album of n messages is n units. A *window*
bounds the number of units in any span of its length. The log holds no more units than the largest window allows; older
ones no longer matter. All times are integer microseconds on the store's clock.

A call that costs more than a whole window (a bulk copy of 100) needs an empty window and leaves a debt: its units are
recorded at the times at which they could have gone, one window after another.

Pacing spreads the units of a window, so that a bot does not send a second's worth at once. It is the generic cell rate
algorithm: each unit advances the *theoretical arrival time* by one interval, and a send may be early by the tolerance.
The tolerance lets a bot catch up after late wake-ups; with strict spacing every delay would be lost for good. A burst
fills the window early and leaves a gap until it opens again, which would repeat every second; so a wait for the window
counts as time spent, all but one interval of it, and the units after a gap are spread out.

``admission.lua`` mirrors these functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

Log = list[int]


class Window(NamedTuple):
    """A limit of ``cap`` units in any span of ``span_us`` microseconds."""

    cap: int
    span_us: int


@dataclass(frozen=True, slots=True)
class Pace:
    """A bot's rate: a window and the spacing within it. Without a window, spacing alone limits the rate."""

    window: Window | None
    interval_us: int
    tolerance_us: int

    @property
    def sustained_interval_us(self) -> float:
        """The average interval between two units in the long run."""
        return max(self.interval_us, self.window.span_us / self.window.cap if self.window else 0)

    def slowed(self, permille: int) -> Pace:
        """This pace at a share of its rate, in thousandths."""
        if permille >= 1000:
            return self
        return Pace(self.window, int(self.sustained_interval_us) * 1000 // permille, self.tolerance_us)


@dataclass(slots=True)
class Budget:
    """The units that a bot has spent: the log of its window, and its theoretical arrival time."""

    log: Log
    arrival_us: int = 0


def free_at(log: Log, windows: Sequence[Window], cost: int) -> int:
    """The earliest time at which ``cost`` more units fit all the windows; 0 if nothing delays them."""
    at = 0
    if cost:
        for cap, span in windows:
            newest_to_leave = len(log) - cap + min(cost, cap) - 1
            if newest_to_leave >= 0:
                at = max(at, log[newest_to_leave] + span)
    return at


def turn_at(log: Log, windows: Sequence[Window], start: int, ahead: int, cost: int) -> int:
    """The time at which ``cost`` units fit if ``ahead`` other units go first, each as soon as possible from ``start``.

    The pattern repeats after each span of the largest window, so the computation takes the same time for any place.
    """
    if not windows:
        return start
    size = log_size(windows)
    rounds, ahead = divmod(ahead, size)
    log = list(log)
    at = start
    for _ in range(ahead):
        at = max(at, free_at(log, windows, 1))
        log.append(at)
    return max(at, free_at(log, windows, cost)) + rounds * _round_us(windows, size)


def spend(log: Log, windows: Sequence[Window], cost: int, now: int) -> Log:
    """The log after ``cost`` units at ``now``."""
    if not windows or not cost:
        return log
    return (log + _units(windows, cost, now))[-log_size(windows) :]


def refund(log: Log, windows: Sequence[Window], cost: int, spent_at: int) -> Log:
    """The log without the units spent at ``spent_at``. Any units that they displaced had already left the window."""
    if not windows or not cost:
        return log
    log = list(log)
    for unit in _units(windows, cost, spent_at):
        if unit in log:
            log.remove(unit)
    return log


def moved(log: Log, windows: Sequence[Window], cost: int, spent_at: int, later: int) -> Log:
    """The log as if the units spent at ``spent_at`` had been spent ``later`` microseconds later."""
    if not windows or not cost:
        return log
    units = _units(windows, cost, spent_at + later)
    return sorted(refund(log, windows, cost, spent_at) + units)[-log_size(windows) :]


def merged(one: Log, other: Log, windows: Sequence[Window]) -> Log:
    """The log of two chats that became one."""
    return sorted(one + other)[-log_size(windows) :] if windows else []


def log_size(windows: Sequence[Window]) -> int:
    """The number of units that a log for these windows holds."""
    return max(window.cap for window in windows)


def _round_us(windows: Sequence[Window], size: int) -> int:
    return max(span * size // cap for cap, span in windows)


def _units(windows: Sequence[Window], cost: int, now: int) -> Log:
    return [now + max(unit // cap * span for cap, span in windows) for unit in range(cost)]


def bot_turn_at(budget: Budget, pace: Pace, ahead: int, cost: int, now: int) -> int:
    """The time at which ``cost`` units may go if ``ahead`` units of other jobs go first. Not after ``now`` means at
    once."""
    at = max(budget.arrival_us, now) - pace.tolerance_us + ahead * pace.interval_us
    if pace.window is None:
        return at
    cap, span = pace.window
    rounds, units = divmod(ahead + min(cost, cap) - 1, cap)
    if rounds == 0:
        return max(at, free_at(budget.log, (pace.window,), units + 1))
    # The units ahead fill the window first.
    return max(at, max(now, free_at(budget.log, (pace.window,), 1)) + rounds * span)


def bot_spend(budget: Budget, pace: Pace, cost: int, now: int) -> None:
    """Spend ``cost`` units of a bot's budget."""
    budget.arrival_us = max(budget.arrival_us, now, _paced_from(budget, pace, cost)) + cost * pace.interval_us
    if pace.window is not None:
        budget.log = spend(budget.log, (pace.window,), cost, now)


def _paced_from(budget: Budget, pace: Pace, cost: int) -> int:
    """The earliest theoretical arrival time of units that waited for the window: at most one interval early."""
    opened = 0 if pace.window is None else free_at(budget.log, (pace.window,), cost)
    return opened + pace.tolerance_us - pace.interval_us if opened else 0


def bot_refund(budget: Budget, pace: Pace, cost: int, spent_at: int) -> None:
    """Return ``cost`` units spent at ``spent_at`` to a bot's budget."""
    budget.arrival_us -= cost * pace.interval_us
    if pace.window is not None:
        budget.log = refund(budget.log, (pace.window,), cost, spent_at)


def resume_evenly(budget: Budget, pace: Pace, at: int) -> None:
    """From ``at`` on, allow one unit per interval with no catching up, so that a pause does not end in a burst."""
    budget.arrival_us = max(budget.arrival_us, at + pace.tolerance_us)


def cautious_budget(pace: Pace, now: int) -> Budget:
    """The budget of a bot with an unknown past, as if it had been sending evenly at its full rate until now."""
    budget = Budget([], now + pace.tolerance_us)
    if pace.window is not None:
        cap, span = pace.window
        budget.log = [now - span + span * unit // cap for unit in range(cap)]
    return budget
