"""Writes log lines without ever waiting for the terminal or pipe that receives them.

Writing to standard error blocks when the terminal is paused with Ctrl-S or the reader of the pipe has stalled; on an
event loop that would cost the heartbeats of every connection. So lines are queued, and one thread writes them.

Bound: :data:`MOST_QUEUED` lines. Beyond it, lines are dropped and counted, and the count is logged when there is room.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from typing import Final

THREAD_NAME: Final = "floodgate-log"
MOST_QUEUED: Final = 10_000
# A busy program's lines are written in batches: waking the thread for each costs more than writing it.
GATHER_SECONDS: Final = 0.01
FLUSH_SECONDS: Final = 2.0  # at exit: a stalled stream must not keep the program from ending


class LogWriter(logging.Handler):
    """Passes records to another handler on its own thread, which starts with the first record."""

    def __init__(self, target: logging.Handler) -> None:
        super().__init__()
        self._target = target
        self._records: queue.Queue[logging.LogRecord | None] = queue.Queue(MOST_QUEUED)
        self._dropped = 0  # under the handler's lock, as is _thread
        self._thread: threading.Thread | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a record for the writing thread; drop and count it if the queue is full."""
        record.msg, record.args = record.getMessage(), ()  # now: arguments may change
        if self._thread is None or not self._thread.is_alive():  # none yet, or left behind by a fork
            self._thread = threading.Thread(target=self._write, name=THREAD_NAME, daemon=True)
            self._thread.start()
        try:
            if self._dropped:
                self._records.put_nowait(_dropped(self._dropped))
                self._dropped = 0
            self._records.put_nowait(record)
        except queue.Full:
            self._dropped += 1

    def flush(self) -> None:
        """Wait until every line is written, for at most :data:`FLUSH_SECONDS`."""
        if self._thread is None or not self._thread.is_alive():
            return
        with self._records.all_tasks_done:
            self._records.all_tasks_done.wait_for(lambda: not self._records.unfinished_tasks, FLUSH_SECONDS)

    def _write(self) -> None:
        while (record := self._records.get()) is not None:
            if self._records.empty():
                time.sleep(GATHER_SECONDS)
            try:
                self._target.handle(record)
            finally:
                self._records.task_done()


def _dropped(count: int) -> logging.LogRecord:
    text = f"{count} log lines were dropped: standard error did not take them in time"
    return logging.LogRecord("floodgate.log", logging.WARNING, __file__, 0, text, (), None)
