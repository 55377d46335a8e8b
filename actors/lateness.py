"""By how much a call arrived later than calls do, told from how long it took.

The Bot API judges rates at arrival; admission knows when it said "go". Between the two lie a busy moment of this
process, of the network, or of the server. None of them can be seen from here, but each makes its call take longer than
calls usually take, and the excess is the most by which it can have arrived late. Admission then counts it from there.

The usual duration is a running median: each call moves it a step towards itself, so that stalls do not raise it and a
Bot API that has become slower does, within some seconds of a broadcast.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

# Answers differ by so much without anything being late; half of admission's margin is for that. With a smaller bound a
# Bot API that takes 80 to 120 ms would cost a bot one percent of its rate; with this one it is some tenths.
NOISE_SECONDS: Final = 0.01
# A longer excess is a server that holds the answer (slow mode does), not a call that was long on its way.
MOST_SECONDS: Final = 0.5
STEP: Final = 0.02
LEAST_STEP_SECONDS: Final = 0.0005


class UsualDuration:
    """Of the calls of one process. Belongs to its event loop."""

    def __init__(self) -> None:
        self._median_seconds: float | None = None

    def lateness(self, seconds: float) -> timedelta:
        """By how much a call that took so long was late; nothing if it was within what is usual. Learns from it."""
        usual = seconds if self._median_seconds is None else self._median_seconds
        step = max(LEAST_STEP_SECONDS, usual * STEP)
        self._median_seconds = max(min(seconds, usual + step), usual - step)
        excess = seconds - usual
        return timedelta(seconds=min(excess, MOST_SECONDS)) if excess > NOISE_SECONDS else timedelta()
