"""The event loop on which a process speaks AMQP: the program's own, or one on a background thread.

A worker, a receiver, a gateway and an ``AsyncClient`` have a loop and use it. A program without one (a script, Django)
gets a :class:`BackgroundLoop`, which serves heartbeats whatever the program's own threads do.

State and who may touch it: ``_calls`` is a deque that any thread appends to and only the loop pops; ``_woken`` saves a
wake-up when one is already scheduled (callers set it, and the loop clears it *before* popping, so that no call is left
behind). Everything that the calls themselves touch belongs to the loop.

Failure: a call must not raise. If one does on a background loop, that is a bug in Floodgate: the loop logs it once and
stops, and ``on_crash`` informs the waiting callers. On a borrowed loop, that loop's exception handler gets the error.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from typing import Any, Final, TypeVar

logger = logging.getLogger("floodgate.rabbitmq")

T = TypeVar("T")


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Create the event loop of a process that Floodgate starts: uvloop's if it is installed, else asyncio's.

    uvloop resolves host names on its own threads; one is enough.
    """
    try:
        import uvloop
    except ImportError:  # it does not run on Windows
        return asyncio.new_event_loop()
    os.environ.setdefault("UV_THREADPOOL_SIZE", "1")
    return uvloop.new_event_loop()


THREAD_NAME: Final = "floodgate-loop"
START_SECONDS: Final = 10.0


class BorrowedLoop:
    """The loop that is running when ``start`` is called. It belongs to the caller: ``stop`` leaves it running."""

    def __init__(self) -> None:
        self._calls: deque[Callable[[], None]] = deque()
        self._woken = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None  # the one that runs the loop

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The asyncio loop. Available once started."""
        assert self._loop is not None, "call start first"
        return self._loop

    @property
    def is_current(self) -> bool:
        """Whether the caller runs on the loop and so must not block."""
        return threading.current_thread() is self._thread

    @property
    def is_over(self) -> bool:
        """Whether the owner has closed the loop."""
        return self._loop is not None and self._loop.is_closed()

    def start(self) -> None:
        """Adopt the running loop.

        Raises:
            RuntimeError: no loop is running in this thread.
        """
        self._loop, self._thread = asyncio.get_running_loop(), threading.current_thread()

    def call_soon(self, call: Callable[[], None]) -> None:
        """Run a call on the loop, from any thread. Calls from one thread run in order."""
        self._calls.append(call)
        if not self._woken:
            self._woken = True
            if self.is_current:
                self.loop.call_soon(self._run_calls)
            else:
                with suppress(RuntimeError):  # the loop is closed: nothing runs there any more
                    self.loop.call_soon_threadsafe(self._run_calls)

    def call_later(self, seconds: float, call: Callable[[], None]) -> asyncio.TimerHandle:
        """Run a call after so many seconds. Only from the loop; ``cancel`` the returned handle to drop the call."""
        return self.loop.call_later(seconds, call)

    def run(self, coroutine: Coroutine[Any, Any, T], timeout_seconds: float | None) -> T:
        """Run a coroutine on the loop and wait for its result, from another thread. It is cancelled when the time-out
        expires; None waits without limit.

        Raises:
            RuntimeError: called on the loop, which would wait for itself.
            TimeoutError: the time-out has expired.
        """
        if self.is_current:
            coroutine.close()
            raise RuntimeError("A blocking call on the event loop would wait for itself: await its async counterpart.")
        future = self.begin(coroutine)
        try:
            return future.result(timeout_seconds)
        except FutureTimeoutError:
            if future.done():
                raise  # the coroutine's own
            future.cancel()
            raise TimeoutError(f"no answer within {timeout_seconds:g} s") from None

    async def join(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Await a coroutine that belongs to this loop, from this loop or another."""
        if self.is_current:
            return await coroutine
        return await asyncio.wrap_future(self.begin(coroutine))

    def begin(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Start a coroutine on the loop, from any thread, without waiting."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def stop(self, timeout_seconds: float) -> None:
        """End what ``start`` began. Safe to call twice and unstarted."""

    def abandon(self) -> None:
        """Close this process's copies of the loop's descriptors in a forked child, without affecting the parent."""

    def _run_calls(self) -> None:
        self._woken = False
        while self._calls:
            self._calls.popleft()()


class BackgroundLoop(BorrowedLoop):
    """A loop on its own thread. ``start`` starts it; a stopped loop cannot be restarted."""

    def __init__(self, on_crash: Callable[[BaseException], None]) -> None:
        super().__init__()
        self._on_crash = on_crash
        self._crash: BaseException | None = None

    def start(self) -> None:
        """Start the loop on its thread and wait until it runs."""
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(self._on_exception)
        started = threading.Event()
        self._loop.call_soon(started.set)
        self._thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)
        self._thread.start()
        started.wait(START_SECONDS)

    def stop(self, timeout_seconds: float) -> None:
        """Stop the loop and wait up to ``timeout_seconds`` for its thread."""
        if self._thread is None or self.is_current or not self._thread.is_alive():
            return
        with suppress(RuntimeError):  # it has just ended
            self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(timeout_seconds)

    def abandon(self) -> None:
        if self._loop is None or self._loop.is_closed():
            return
        loop: Any = self._loop
        for ours in (loop._selector, loop._ssock, loop._csock):
            # Not loop.close: it would unregister from the epoll set, which parent and child share.
            ours.close()
        loop._closed = True  # or its finalizer would unregister them after all

    def _run(self) -> None:
        loop = self.loop
        asyncio.set_event_loop(loop)
        loop.run_forever()
        if self._crash is not None:
            self._on_crash(self._crash)
            return
        _cancel_all(loop)
        loop.close()

    def _on_exception(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if error is None or "handle" not in context:  # an exception nobody retrieved: log it, keep running
            loop.default_exception_handler(context)
            return
        logger.critical("the RabbitMQ event loop crashed (a bug in Floodgate)", exc_info=error)
        self._crash = error
        loop.stop()


def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    """Cancel the tasks that still run, and wait for them."""
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.wait(tasks, timeout=1))
    loop.run_until_complete(loop.shutdown_asyncgens())
