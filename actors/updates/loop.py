"""The event loop that handlers run on. It has its own thread, so that a blocking handler delays no sends.

Handlers, or tasks that they started, may stop the loop: ``Application.stop_running()`` does so, and so does a
``SystemExit`` that nothing catches. The loop then runs on, so that the updates under way can finish, and reports the
reason, so that the worker ends.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

T = TypeVar("T")

START_SECONDS: Final = 5.0
STOP_SECONDS: Final = 5.0


class HandlerLoop:
    """An event loop on a thread of its own. Start it once; ``stop`` is safe to call twice, and unstarted. Safe to use
    from any thread.

    Args:
        on_stopped: called on the thread, with the reason, when code on the loop has stopped it.
    """

    def __init__(self, on_stopped: Callable[[str], None]) -> None:
        self.loop = asyncio.new_event_loop()
        self._on_stopped = on_stopped
        self._stopping = threading.Event()
        self._running = threading.Event()
        self.thread = threading.Thread(target=self._run, name="floodgate-handlers", daemon=True)

    def start(self) -> None:
        """Start the thread, and wait until the loop runs."""
        self.thread.start()
        self._running.wait(START_SECONDS)

    async def run(self, coroutine: Coroutine[Any, Any, T], timeout_seconds: float) -> T:
        """Run a coroutine on this loop, and await its result or exception from another one.

        Raises:
            TimeoutError: it did not finish in time, perhaps because the loop is blocked; it is cancelled.
            RuntimeError: the loop is not running.
        """
        if not self.thread.is_alive():
            coroutine.close()
            raise RuntimeError("The handlers' event loop is not running.")
        running = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self.loop))
        await asyncio.wait({running}, timeout=timeout_seconds)
        if not running.done():
            running.cancel()
            raise TimeoutError(f"the handlers' event loop did not answer within {timeout_seconds:g} s")
        return running.result()

    def stop(self) -> None:
        """Cancel all tasks and end the thread, unless the loop is blocked."""
        if self.thread.is_alive():
            self._stopping.set()
            self.loop.call_soon_threadsafe(self.loop.stop)
            self.thread.join(STOP_SECONDS)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.call_soon(self._running.set)
        try:
            while not self._stopping.is_set():
                self._run_until_stopped()
            self._cancel_all()
        finally:
            self.loop.close()

    def _run_until_stopped(self) -> None:
        reason = "it called stop_running() or stopped the event loop"
        try:
            self.loop.run_forever()
        except (SystemExit, KeyboardInterrupt) as error:
            reason = f"{type(error).__name__} was raised outside of a handler"
        if not self._stopping.is_set():
            self._on_stopped(reason)

    def _cancel_all(self) -> None:
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        self.loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
