"""The two threads of `floodgate top`: one reads the picture, one does what the operator asks for.

Both are daemon threads that close what they opened, and neither is waited for at the end: RabbitMQ or a store that does
not answer keeps nobody in the program.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Final

from floodgate.broker.errors import FloodgateError
from floodgate.broker.settings.model import Settings
from floodgate.overview.picture import Overview
from floodgate.overview.reader import OverviewReader
from floodgate.top.operations import Operations

INTERVAL: Final = timedelta(seconds=1)
MOST_WAITING: Final = 8
"""Bound on the operations that wait for the one under way."""

Work = Callable[[Operations], Callable[[], None]]
"""Done on the thread; what it returns is then called on the event loop."""


class PictureThread:
    """Reads the picture again and again. Safe to stop twice, and unstarted.

    Args:
        show: called on the reading thread with each picture.
        crashed: called on it with a bug.
    """

    def __init__(
        self,
        settings: Settings,
        bots: list[str],
        show: Callable[[Overview], object],
        crashed: Callable[[BaseException], object],
    ) -> None:
        self._reader = OverviewReader(settings, "top", bots=bots)
        self._show = show
        self._crashed = crashed
        self._stopped = False
        self._wake = threading.Event()
        self._fresh = False

    def start(self) -> None:
        """Start the thread."""
        threading.Thread(target=self._run, name="picture", daemon=True).start()

    def refresh(self) -> None:
        """Read it all now: the operator has changed something."""
        self._fresh = True
        self._wake.set()

    def stop(self) -> None:
        """Read no more. Returns at once."""
        self._stopped = True
        self._wake.set()

    def _run(self) -> None:
        try:
            with self._reader as reader:
                while not self._stopped:
                    self._wake.clear()
                    fresh, self._fresh = self._fresh, False
                    self._show(reader.read(fresh=fresh))
                    self._wake.wait(INTERVAL.total_seconds())
        except BaseException as error:  # noqa: BLE001 - raised on the event loop
            self._crashed(error)


class OperatorThread:
    """Does one operation after another on a thread. Safe to stop twice, and unstarted.

    Args:
        done: called on the thread with what is to be called on the event loop.
        failed: called on it with an operation's error, which is a FloodgateError unless it is a bug.
    """

    def __init__(
        self,
        settings: Settings,
        done: Callable[[Callable[[], None]], object],
        failed: Callable[[BaseException], object],
    ) -> None:
        self._settings = settings
        self._done = done
        self._failed = failed
        self._stopped = False
        self._work: queue.Queue[Work | None] = queue.Queue(MOST_WAITING)

    def start(self) -> None:
        """Start the thread."""
        threading.Thread(target=self._run, name="operator", daemon=True).start()

    def submit(self, work: Work) -> bool:
        """Have an operation done. Return False if too many wait."""
        try:
            self._work.put_nowait(work)
        except queue.Full:
            return False
        return True

    def stop(self) -> None:
        """Begin no further operation. Returns at once."""
        self._stopped = True
        with suppress(queue.Full):  # then the thread is busy, and sees that it has stopped
            self._work.put_nowait(None)

    def _run(self) -> None:
        with Operations(self._settings) as operations:
            while (work := self._work.get()) is not None and not self._stopped:
                try:
                    self._done(work(operations))
                except FloodgateError as error:
                    self._failed(error)
                except BaseException as error:  # noqa: BLE001 - raised on the event loop
                    self._failed(error)
                    return
