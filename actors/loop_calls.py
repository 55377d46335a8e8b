"""From worker threads to the event loop and back, with a wake-up for a crowd and not for each call.

Dramatiq's own ``run_coroutine`` writes to the loop's pipe for every call, wraps each coroutine in two futures and looks
up from its wait ten times a second. Each of those lets go of the interpreter's lock while other threads want it, which
is where the time of a busy worker goes: without them a job costs an eighth less CPU (docs/performance.md).

State and who may touch it: ``_calls`` is a deque any thread appends to and only the loop pops; ``_woken`` spares a
wake-up when one is on its way (set by callers, cleared by the loop *before* it pops, so that no call is left behind);
``_tasks`` is the loop's. A call's result is written by the loop before ``done`` is released, and read after.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class _Call(Generic[T]):
    __slots__ = ("coroutine", "done", "error", "result")

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self.coroutine = coroutine
        self.done = threading.Lock()  # held until the call has ended: the cheapest thing a thread can wait for
        self.done.acquire()
        self.result: T
        self.error: BaseException | None = None


class LoopCalls:
    """Runs coroutines on one event loop for threads that wait for them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._calls: deque[_Call[Any]] = deque()
        self._woken = False
        self._tasks: set[asyncio.Task[None]] = set()  # asyncio itself refers to a task weakly

    def run(self, coroutine: Coroutine[Any, Any, T], timeout_seconds: float) -> T:
        """Run it on the loop and wait for its result; what it raises is raised here.

        Raises:
            TimeoutError: the loop did not answer. Bound the coroutine itself by less: it is not cancelled from here.
            RuntimeError: the loop is not running.
        """
        if not self._loop.is_running():
            coroutine.close()
            raise RuntimeError("The event loop is not running.")
        call = _Call(coroutine)
        self._calls.append(call)
        if not self._woken:
            self._woken = True
            self._loop.call_soon_threadsafe(self._begin_all)
        if not call.done.acquire(timeout=timeout_seconds):
            raise TimeoutError(f"the event loop did not answer within {timeout_seconds:g} s")
        if call.error is not None:
            raise call.error
        return call.result

    def _begin_all(self) -> None:
        self._woken = False
        while self._calls:
            task = self._loop.create_task(self._carry_out(self._calls.popleft()))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _carry_out(self, call: _Call[Any]) -> None:
        try:
            call.result = await call.coroutine
        except BaseException as error:  # noqa: BLE001  # carried to the thread that waits, which raises it
            call.error = error
        finally:
            call.done.release()
