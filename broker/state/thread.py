"""Runs blocking calls of state stores on one thread, one at a time, for event loops.

A transaction may wait for a lock or for the disk, and the loop must not. Results return to the loop in batches: while
more calls are queued, they share one wake-up.

State: only ``_jobs`` is shared. Any loop adds to it, and the thread takes from it.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeVar

THREAD_NAME: Final = "floodgate-state"
STOP_SECONDS: Final = 10.0
# Results are handed over after at most this many calls, so that the first need not wait for the end of a long queue.
MOST_HELD: Final = 64

T = TypeVar("T")

Callback = Callable[[Any], None]


class StateThread:
    """A thread for blocking calls, started by the first one. ``stop`` is safe to call twice, and before any call."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[tuple[asyncio.AbstractEventLoop, Callable[[], Any], Callback] | None] = (
            queue.SimpleQueue()
        )
        self._thread: threading.Thread | None = None

    def submit(self, work: Callable[[], Any], done: Callback) -> None:
        """Run ``work`` on the thread, then call ``done`` on the running loop with its result or its exception."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)
            self._thread.start()
        self._jobs.put((asyncio.get_running_loop(), work, done))

    async def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run a blocking function on the thread and return its result."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.submit(partial(function, *arguments), partial(_resolve, future))
        return await future

    async def stop(self) -> None:
        """End the thread after all submitted calls; wait for at most :data:`STOP_SECONDS`.

        This does not use the loop's executor, whose threads may hang on an unresponsive disk.
        """
        if self._thread is None:
            return
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.submit(lambda: None, partial(_resolve, ended))
        self._jobs.put(None)
        self._thread = None
        await asyncio.wait({ended}, timeout=STOP_SECONDS)

    def _run(self) -> None:
        held: list[tuple[Callback, Any]] = []
        loop: asyncio.AbstractEventLoop | None = None
        while (job := self._jobs.get()) is not None:
            theirs, work, done = job
            if loop is not None and (theirs is not loop or len(held) >= MOST_HELD):
                _hand_over(loop, held)
                held = []
            loop = theirs
            held.append((done, _outcome(work)))
            if self._jobs.empty():
                _hand_over(loop, held)
                held = []
        if loop is not None:
            _hand_over(loop, held)


def _outcome(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except Exception as error:  # noqa: BLE001  # passed to the caller that awaits it
        return error


def _hand_over(loop: asyncio.AbstractEventLoop, held: list[tuple[Callback, Any]]) -> None:
    if held:
        with suppress(RuntimeError):  # the loop is closed, and its waiting callers are gone
            loop.call_soon_threadsafe(_deliver, held)


def _deliver(held: list[tuple[Callback, Any]]) -> None:
    for done, outcome in held:
        done(outcome)


def _resolve(future: asyncio.Future[Any], outcome: Any) -> None:
    if future.done():
        return  # the caller was cancelled
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
