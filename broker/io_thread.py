"""The one thread that does all AMQP I/O of a process.

A pika connection belongs to the thread that runs its loop. This one runs a single loop for every connection,
so heartbeats are served whatever the program's own threads do, in an idle producer too.

State and who may touch it: ``_calls`` is a deque any thread appends to and only the loop pops; ``_woken``
spares a wake-up when one is on its way (set by callers, cleared by the loop *before* it pops, so that no call
is left behind). Everything that the calls themselves touch belongs to the loop.

Failure: a call must not raise. If one does, that is a fault of ours; the loop ends, says so once, and
``on_crash`` tells whoever waits.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from pika.adapters.select_connection import IOLoop

logger = logging.getLogger("floodgate.rabbitmq")

THREAD_NAME: Final = "floodgate-io"


class IoThread:
    """A loop and its thread. ``start`` begins it; a stopped one is not started again."""

    def __init__(self, on_crash: Callable[[BaseException], None]) -> None:
        self._on_crash = on_crash
        self._calls: deque[Callable[[], None]] = deque()
        self._woken = False
        self._loop: Any = None
        self._thread: threading.Thread | None = None

    @property
    def loop(self) -> Any:
        """pika's loop, for making connections. Only from the loop's own thread."""
        return self._loop

    @property
    def is_current(self) -> bool:
        """Whether the caller is the I/O thread, which must never wait."""
        return threading.current_thread() is self._thread

    def start(self) -> None:
        quiet_pika()
        self._loop = IOLoop()
        self._thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)
        self._thread.start()

    def call_soon(self, call: Callable[[], None]) -> None:
        """Run a call on the loop. From any thread; calls of one thread run in order."""
        self._calls.append(call)
        if not self._woken:
            self._woken = True
            self._loop.add_callback_threadsafe(self._run_calls)

    def call_later(self, seconds: float, call: Callable[[], None]) -> Any:
        """Run a call after a while. Only from the loop's own thread; the answer is for :meth:`forget`."""
        return self._loop.call_later(seconds, call)

    def forget(self, timer: Any) -> None:
        """Cancel what ``call_later`` planned. Only from the loop's own thread."""
        self._loop.remove_timeout(timer)

    def stop(self, timeout_seconds: float) -> None:
        """End the loop and its thread. Safe to call twice and unstarted."""
        if self._thread is None or self.is_current:
            return
        self._loop.add_callback_threadsafe(self._loop.stop)
        self._thread.join(timeout_seconds)

    def abandon(self) -> None:
        """In a forked child: close our copies of the loop's descriptors. The parent's loop does not
        notice."""
        if self._loop is None:
            return
        poller = self._loop._poller
        for ours in (poller._poll, poller._r_interrupt, poller._w_interrupt):
            # Not IOLoop.close: it would unregister from the epoll set, which parent and child share.
            if hasattr(ours, "close"):
                ours.close()

    def _run_calls(self) -> None:
        self._woken = False
        while self._calls:
            self._calls.popleft()()

    def _run(self) -> None:
        try:
            self._loop.start()
        except BaseException as error:
            logger.critical("the RabbitMQ I/O thread ended by a fault in Floodgate", exc_info=True)
            self._on_crash(error)
        else:
            self._loop.close()


def quiet_pika() -> None:
    """pika logs each lost connection several times at ERROR, with stack traces; we say it once, in a
    sentence.

    Whoever has given the ``pika`` logger a level wants to see it, and does.
    """
    pika_logger = logging.getLogger("pika")
    if pika_logger.level == logging.NOTSET:
        pika_logger.setLevel(logging.CRITICAL)
