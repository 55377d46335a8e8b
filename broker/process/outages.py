"""Retrying through an outage: growing pauses, and log lines at a limited rate."""

from __future__ import annotations

import time
from typing import Final

EVERY_SECONDS: Final = 60.0


class Backoff:
    """Pauses that double up to a bound. Not thread-safe: each caller that retries has its own."""

    def __init__(self, first_seconds: float, longest_seconds: float) -> None:
        self._first_seconds = first_seconds
        self._longest_seconds = longest_seconds
        self._next_seconds = first_seconds

    def next_seconds(self) -> float:
        """Return the pause before the next attempt. The pause after that is twice as long."""
        pause, self._next_seconds = self._next_seconds, min(self._next_seconds * 2, self._longest_seconds)
        return pause

    def reset(self) -> None:
        """Start again with the first pause, after a success."""
        self._next_seconds = self._first_seconds


class OutageLog:
    """Decides when to log an outage: when it begins, every :data:`EVERY_SECONDS`, and when its text changes.

    Any thread may use it; two threads that ask at the same moment may both log.
    """

    def __init__(self) -> None:
        self._since: float | None = None
        self._told: tuple[float, str] | None = None

    @property
    def lasted_seconds(self) -> float:
        """Duration of the outage so far; 0 if there is none."""
        return 0.0 if self._since is None else time.monotonic() - self._since

    def begin(self) -> None:
        """Start an outage now, unless one has begun."""
        if self._since is None:
            self._since = time.monotonic()

    def is_due(self, text: str = "") -> bool:
        """Return whether to log now. Begins an outage if there is none; a changed ``text`` is always due."""
        self.begin()
        now = time.monotonic()
        if self._told is not None and self._told[1] == text and now - self._told[0] < EVERY_SECONDS:
            return False
        self._told = now, text
        return True

    def end(self) -> float | None:
        """End the outage. Return how many seconds it lasted, or None if it was never logged."""
        lasted, told = self.lasted_seconds, self._told
        self._since = self._told = None
        return lasted if told is not None else None
