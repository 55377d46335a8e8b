"""Estimates a call's arrival delay from its duration.

The Bot API judges rates when calls arrive, while admission knows when it issued the permit. In between, this process,
the network or the server may be busy. None of this is visible from here, but each makes the call take longer than
usual, and the excess is an upper bound on its arrival delay. Admission then counts the call from that later time.

The usual duration is a running median: each call moves it one step towards its own duration. So stalls do not raise it,
but a Bot API that has become slower does, within a few seconds of a broadcast. Little is known about the first calls
except that they tend to be late, because the process is still warming up: any part of their time may be delay.
"""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Final

# Durations vary by this much although nothing is late; half of admission's margin covers it. With a smaller bound, a
# Bot API that takes 80 to 120 ms would cost a bot one percent of its rate; with this one, a few tenths of a percent.
NOISE_SECONDS: Final = 0.01
# The number of calls whose shortest duration is the first estimate: the others are slowed down by warming up.
FIRST_CALLS: Final = 8
STEP: Final = 0.02
LEAST_STEP_SECONDS: Final = 0.0005


class UsualDuration:
    """The usual duration of one process's calls. Belongs to its event loop."""

    def __init__(self) -> None:
        self._calls = 0
        self._usual_seconds = math.inf

    def lateness(self, seconds: float) -> timedelta:
        """Estimate the arrival delay of a call from its duration, zero if that is usual, and learn from it."""
        usual = self._usual_seconds
        if self._calls < FIRST_CALLS:
            self._calls += 1
            self._usual_seconds = min(usual, seconds)
            excess = seconds
        else:
            step = max(LEAST_STEP_SECONDS, usual * STEP)
            self._usual_seconds = max(min(seconds, usual + step), usual - step)
            excess = seconds - usual
        return timedelta(seconds=excess) if excess > NOISE_SECONDS else timedelta()
