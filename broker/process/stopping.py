"""The stop signal of a process: set once, from any thread; coroutines and threads can wait for it."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress


class Stopping:
    """A stop signal. Every wait is bounded by the seconds that the caller gives."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._sleepers: set[asyncio.Future[None]] = set()  # each belongs to its own loop

    def set(self) -> None:
        """Wake every waiter. Safe to call twice, from any thread."""
        self._event.set()
        for sleeper in list(self._sleepers):
            with suppress(RuntimeError):  # its loop has ended
                sleeper.get_loop().call_soon_threadsafe(_wake, sleeper)

    def is_set(self) -> bool:
        """Return whether the process is stopping."""
        return self._event.is_set()

    def wait(self, seconds: float) -> bool:
        """Block the thread until the signal is set, for at most ``seconds``. Return whether it is set."""
        return self._event.wait(seconds)

    async def sleep(self, seconds: float) -> bool:
        """Do the same as :meth:`wait` on an event loop."""
        loop = asyncio.get_running_loop()
        sleeper: asyncio.Future[None] = loop.create_future()
        self._sleepers.add(sleeper)  # before checking: a concurrent set() must find this sleeper
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
