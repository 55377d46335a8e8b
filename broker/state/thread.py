"""The state thread, which carries out an event loop's blocking store calls one after the other.

A transaction may have to wait for a lock or for the disk, and the loop must not. Results return to the loop together,
with one wake-up per batch.

State: ``_jobs`` is the only shared state; any loop puts calls in, and the thread takes them out.
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
# Results are delivered after at most this many calls, so that the first need not wait for the end of a long queue.
MOST_HELD: Final = 64

T = TypeVar("T")

Callback = Callable[[Any], None]


class StateThread:
    """A thread for blocking calls, started at the first. ``stop`` is safe to call twice, and unstarted."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[tuple[asyncio.AbstractEventLoop, Callable[[], Any], Callback] | None] = (
            queue.SimpleQueue()
        )
        self._thread: threading.Thread | None = None

    def submit(self, work: Callable[[], Any], done: Callback) -> None:
        """Run ``work``, then call ``done`` on the running loop with its result or exception."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)
            self._thread.start()
        self._jobs.put((asyncio.get_running_loop(), work, done))

    async def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run a blocking function on the thread and await its result."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.submit(partial(function, *arguments), partial(resolve, future))
        return await future

    async def stop(self) -> None:
        """End the thread once all submitted work is done. Waits for at most :data:`STOP_SECONDS`.

        Does not use the loop's executor, whose threads may hang on a disk that does not answer.
        """
        if self._thread is None:
            return
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.submit(lambda: None, partial(resolve, ended))
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
        with suppress(RuntimeError):  # the loop has ended, and its callers with it
            loop.call_soon_threadsafe(_deliver, held)


def _deliver(held: list[tuple[Callback, Any]]) -> None:
    for done, outcome in held:
        done(outcome)


def resolve(future: asyncio.Future[Any], outcome: Any) -> None:
    """Give a caller its result, or raise the exception that it is."""
    if future.done():
        return  # the caller was cancelled
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
