"""Waits, up to a limit, for conditions that have no event to wait on."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

POLL_SECONDS = 0.02


def until(probe: Callable[[], T], seconds: float = 15.0) -> T:
    """Returns the first true answer of the probe; AssertionError if there is none in time."""
    deadline = time.monotonic() + seconds
    while not (answer := probe()):
        assert time.monotonic() < deadline, f"still {answer!r} after {seconds:g} s"
        time.sleep(POLL_SECONDS)
    return answer
