"""The word that a process ends: set once, from any thread, and waited for by coroutines and threads alike."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress


class Stopping:
    """Set once. Waiting is bounded by the caller's seconds."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._sleepers: set[asyncio.Future[None]] = set()  # each is its own loop's

    def set(self) -> None:
        """Wake all who wait. Safe to call twice, from any thread."""
        self._event.set()
        for sleeper in list(self._sleepers):
            with suppress(RuntimeError):  # its loop has ended
                sleeper.get_loop().call_soon_threadsafe(_wake, sleeper)

    def is_set(self) -> bool:
        return self._event.is_set()

    def wait(self, seconds: float) -> bool:
        """Block a thread for so long, or until it is set; whether it is."""
        return self._event.wait(seconds)

    async def sleep(self, seconds: float) -> bool:
        """:meth:`wait` on an event loop, as a timer."""
        loop = asyncio.get_running_loop()
        sleeper: asyncio.Future[None] = loop.create_future()
        self._sleepers.add(sleeper)  # before the look: who sets it meanwhile sees us
        timer = loop.call_later(seconds, _wake, sleeper)
        try:
            if not self._event.is_set():
                await sleeper
        finally:
            timer.cancel()
            self._sleepers.discard(sleeper)
        return self._event.is_set()


def _wake(sleeper: asyncio.Future[None]) -> None:
    if not sleeper.done():
        sleeper.set_result(None)
