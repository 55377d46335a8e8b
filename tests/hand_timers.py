"""An event loop's timers, fired by hand. Futures and tasks are those of a real loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(eq=False)
class Timer:
    seconds: float
    call: Callable[[], None]
    planned: list[Timer]

    def cancel(self) -> None:
        if self in self.planned:  # asyncio ignores it, too
            self.planned.remove(self)


class HandTimers:
    """Planned calls wait for the test to fire them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.planned: list[Timer] = []

    def call_later(self, seconds: float, call: Callable[[], None]) -> Timer:
        self.planned.append(Timer(seconds, call, self.planned))
        return self.planned[-1]

    def turn(self) -> None:
        """Runs ready callbacks, and those they make ready."""
        for _ in range(3):
            self.loop.run_until_complete(asyncio.sleep(0))
