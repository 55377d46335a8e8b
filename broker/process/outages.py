"""Trying again what fails for a while: with a pause that grows, and with a log line now and then."""

from __future__ import annotations

import time
from typing import Final

EVERY_SECONDS: Final = 60.0


class Backoff:
    """Pauses that double up to a bound. Belongs to whoever tries."""

    def __init__(self, first_seconds: float, longest_seconds: float) -> None:
        self._first_seconds = first_seconds
        self._longest_seconds = longest_seconds
        self._next_seconds = first_seconds

    def next_seconds(self) -> float:
        """The pause before the next try; the one after that is twice as long."""
        pause, self._next_seconds = self._next_seconds, min(self._next_seconds * 2, self._longest_seconds)
        return pause

    def reset(self) -> None:
        """Begin anew: it works."""
        self._next_seconds = self._first_seconds


class OutageLog:
    """Tells when an outage is worth a log line: when it begins, then every :data:`EVERY_SECONDS`, and when its text
    changes. Any thread may use it; two that come in one moment may both be told to write."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._told: tuple[float, str] | None = None

    @property
    def lasted_seconds(self) -> float:
        """For how long it has lasted; 0 when there is none."""
        return 0.0 if self._since is None else time.monotonic() - self._since

    def begin(self) -> None:
        """Count from now on, if no outage is counted."""
        if self._since is None:
            self._since = time.monotonic()

    def is_due(self, text: str = "") -> bool:
        """Whether to write a line now. One that is told apart by its text is due when the text changes."""
        self.begin()
        now = time.monotonic()
        if self._told is not None and self._told[1] == text and now - self._told[0] < EVERY_SECONDS:
            return False
        self._told = now, text
        return True

    def end(self) -> float | None:
        """Forget the outage. How many seconds it lasted, if a line about it was due; None if nobody heard of one."""
        lasted, told = self.lasted_seconds, self._told
        self._since = self._told = None
        return lasted if told is not None else None
