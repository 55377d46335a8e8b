"""By how much a call arrived later than calls do, told from how long it took.

The Bot API judges rates at arrival; admission knows when it said "go". Between the two lie a busy moment of this
process, of the network, or of the server. None of them can be seen from here, but each makes its call take longer than
calls usually take, and the excess is the most by which it can have arrived late. Admission then counts it from there.

The usual duration is a running median: each call moves it a step towards itself, so that stalls do not raise it and a
Bot API that has become slower does, within some seconds of a broadcast. Of the first calls nothing is known but that
they are the ones a process is late with, for all is new to it: any of their time may be lateness.
"""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Final

# Answers differ by so much without anything being late; half of admission's margin is for that. With a smaller bound a
# Bot API that takes 80 to 120 ms would cost a bot one percent of its rate; with this one it is some tenths.
NOISE_SECONDS: Final = 0.01
# A longer excess is a server that holds the answer (slow mode does), not a call that was long on its way.
MOST_SECONDS: Final = 0.5
# So many make what is usual: the quickest of them, for the others were slowed down by a beginning.
FIRST_CALLS: Final = 8
STEP: Final = 0.02
LEAST_STEP_SECONDS: Final = 0.0005


class UsualDuration:
    """Of the calls of one process. Belongs to its event loop."""

    def __init__(self) -> None:
        self._calls = 0
        self._usual_seconds = math.inf

    def lateness(self, seconds: float) -> timedelta:
        """By how much a call that took so long was late; nothing if it was within what is usual. Learns from it."""
        usual = self._usual_seconds
        if self._calls < FIRST_CALLS:
            self._calls += 1
            self._usual_seconds = min(usual, seconds)
            excess = seconds
        else:
            step = max(LEAST_STEP_SECONDS, usual * STEP)
            self._usual_seconds = max(min(seconds, usual + step), usual - step)
            excess = seconds - usual
        return timedelta(seconds=min(excess, MOST_SECONDS)) if excess > NOISE_SECONDS else timedelta()
