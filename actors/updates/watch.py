"""Detects a handler that blocks the event loop, which stops every chat of its worker, and names it in the log.

A thread schedules a callback on the loop at intervals. If it does not run in time, the thread inspects the stack of the
loop's thread for the innermost and the outermost frame of the user's code; the outermost one is the handler. It logs
this once while the loop is blocked, and logs the duration once it runs again.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import sysconfig
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final

import telegram

logger = logging.getLogger("floodgate.updates")

STOP_SECONDS: Final = 5.0
_ROOT: Final = Path(__file__).parents[2]
_NOT_USERS: Final = (
    "<frozen",
    f"{_ROOT}/",
    f"{Path(telegram.__file__).parent}/",
)
_STANDARD: Final = f"{sysconfig.get_path('stdlib')}/"
# Without a virtual environment, installed packages are in a subfolder of the standard library.
_INSTALLED: Final = ("site-packages/", "dist-packages/")


@dataclass(frozen=True, slots=True)
class Culprit:
    """The code that blocks the loop: the handler, and the line of the user's code that is running."""

    handler: str
    line: str

    def __str__(self) -> str:
        return f"{self.handler}, at {self.line}"


class LoopWatch:
    """Watches one event loop. ``stop`` is safe to call twice and unstarted."""

    def __init__(self, loop: asyncio.AbstractEventLoop, thread: threading.Thread, bound_seconds: float) -> None:
        self._loop = loop
        self._watched = thread
        self._bound_seconds = bound_seconds
        self._stopped = threading.Event()
        self._beat = threading.Event()  # set by the loop
        self._thread = threading.Thread(target=self._run, name="floodgate-loop-watch", daemon=True)

    def start(self) -> None:
        """Start the watching thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the watching thread, within :data:`STOP_SECONDS`."""
        self._stopped.set()
        self._beat.set()
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS)

    def _run(self) -> None:
        while not self._stopped.wait(self._bound_seconds / 2):
            self._beat.clear()
            asked_at = time.monotonic()
            try:
                self._loop.call_soon_threadsafe(self._beat.set)
            except RuntimeError:  # the loop is closed
                return
            if not self._beat.wait(self._bound_seconds):
                self._report(asked_at)

    def _report(self, since: float) -> None:
        culprit = culprit_in(sys._current_frames().get(self._watched.ident or 0)) or "code outside of the handlers"
        logger.error(
            "The event loop is blocked by %s, so no chat of this worker is served. Await instead of blocking "
            "(asyncio.sleep, an async client), or move the call to a thread: await asyncio.to_thread(…).",
            culprit,
        )
        self._beat.wait()
        if not self._stopped.is_set():
            blocked_seconds = time.monotonic() - since
            logger.warning("The event loop runs again after %.1f s. It was blocked by %s.", blocked_seconds, culprit)


def culprit_in(frame: FrameType | None) -> Culprit | None:
    """Find the user's code in a thread's stack; None if there are only frames of libraries and of Floodgate."""
    users = [each for each in _outwards(frame) if _is_users(each.f_code.co_filename)]
    if not users:
        return None
    inner, outer = users[0], users[-1]
    name = f"{outer.f_globals.get('__name__', '?')}.{outer.f_code.co_qualname}"
    return Culprit(name, f"{inner.f_code.co_filename}:{inner.f_lineno} in {inner.f_code.co_qualname}")


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _is_users(filename: str) -> bool:
    standard = filename.startswith(_STANDARD) and not filename[len(_STANDARD) :].startswith(_INSTALLED)
    return not standard and not filename.startswith(_NOT_USERS)
