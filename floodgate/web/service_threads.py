"""Runs blocking calls on threads, so that none blocks the event loop, each bounded in time.

One object serves one service, such as the state store, so that a service that does not answer makes no page wait for
another. Bounds: a caller waits for :data:`ANSWER_SECONDS` unless it says otherwise; at most :data:`MOST_WAITING` calls
wait. A call whose caller has given up still occupies its thread until it ends; its own time-outs end it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from floodgate.broker.errors import FloodgateError
from floodgate.broker.state.thread import StateThread

ANSWER_SECONDS: Final = 3.0
MOST_WAITING: Final = 64

T = TypeVar("T")


class ServiceThreads:
    """Threads for the blocking calls to one service. ``stop`` is safe to call twice, and unstarted.

    Args:
        service: its name in errors, as in ``the state store``.
        error: what is raised if it does not answer in time.
    """

    def __init__(self, service: str, error: type[FloodgateError], threads: int = 2) -> None:
        self._service = service
        self._error = error
        self._threads = {StateThread(): 0 for _ in range(threads)}  # and the calls that wait for each

    async def call(self, function: Callable[..., T], *arguments: Any, seconds: float | None = ANSWER_SECONDS) -> T:
        """Run a function on a thread and return its result.

        Args:
            seconds: how long to wait for it; None waits for as long as it takes.

        Raises:
            FloodgateError: of the kind that was given, because the service does not answer in time; or the function's.
        """
        if sum(self._threads.values()) >= MOST_WAITING:
            raise self._error(f"{MOST_WAITING} requests wait for {self._service} already. Try again later.")
        thread = min(self._threads, key=lambda each: self._threads[each])
        self._threads[thread] += 1
        running = asyncio.ensure_future(thread.call(function, *arguments))
        running.add_done_callback(lambda _: self._release(thread))
        done, _ = await asyncio.wait({running}, timeout=seconds)
        if not done:
            running.add_done_callback(_retrieve)
            raise self._error(f"No answer from {self._service} within {seconds:g} s. Try again later.")
        return running.result()

    async def stop(self) -> None:
        """End the threads once what they run has ended; waits for at most ``thread.STOP_SECONDS``."""
        await asyncio.gather(*(thread.stop() for thread in self._threads))

    def _release(self, thread: StateThread) -> None:
        self._threads[thread] -= 1


@dataclass(frozen=True, slots=True)
class PartOfPage(Generic[T]):
    """What one part of a page shows, or the sentence that says why it cannot be shown."""

    value: T | None = None
    problem: str | None = None


async def attempt(reading: Awaitable[T]) -> PartOfPage[T]:
    """Await what a part of a page shows. An error that Floodgate foresees becomes the part's problem."""
    try:
        return PartOfPage(await reading)
    except FloodgateError as error:
        return PartOfPage(problem=str(error))


def _retrieve(task: asyncio.Future[Any]) -> None:
    """Look at the outcome that nobody awaits any more, so that asyncio does not report it."""
    if not task.cancelled():
        task.exception()
