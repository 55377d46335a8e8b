"""Records recipients' responses in batches, on a thread of its own, so that updates never wait for the database.

Responses that wait are bounded by :data:`MOST_NOTED`; more are dropped, counted and logged, as while the database is
unavailable for long. Those that wait when the process is killed are lost.

State: the event loop appends to ``_noted`` and counts ``_dropped``. The thread also appends, and it alone takes out.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from datetime import timedelta
from itertools import islice
from typing import Final

from floodgate.broker.errors import FloodgateError
from floodgate.broker.process.outages import OutageLog
from floodgate.producer.campaigns.responses.responses import Response
from floodgate.producer.campaigns.responses.store import ResponseStore

logger = logging.getLogger("floodgate.campaigns")

EVERY_SECONDS: Final = 1.0
BATCH: Final = 1000
MOST_NOTED: Final = 10_000
# How long a response waits for the record of how the recipient's job ended.
UNDECIDED: Final = timedelta(minutes=1)
STOP_SECONDS: Final = 5.0


class ResponseRecorder:
    """Records responses to a process's bots. ``stop`` is safe to call twice, and unstarted."""

    def __init__(self, store: ResponseStore, window: timedelta) -> None:
        self._store = store
        self._window = window
        self._noted: deque[Response] = deque()
        self._dropped = self._told_dropped = 0
        self._outage = OutageLog()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="floodgate-responses", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def note(self, response: Response) -> None:
        """Record a response soon. Never blocks."""
        if len(self._noted) < MOST_NOTED:
            self._noted.append(response)
        else:
            self._dropped += 1

    def stop(self) -> None:
        """Record what waits, and close the database, within :data:`STOP_SECONDS`."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS)

    def _run(self) -> None:
        while not self._stopping.wait(EVERY_SECONDS):
            self.record()
        self.record()
        self._store.close()

    def record(self) -> None:
        """Record what has been noted. If the database is unavailable, it stays noted."""
        undecided: list[Response] = []
        try:
            while batch := list(islice(self._noted, BATCH)):
                undecided += self._store.record(batch, self._window)
                for _ in batch:
                    self._noted.popleft()
            self._outage.end()
        except FloodgateError as error:
            if self._outage.is_due():
                logger.warning("responses to campaigns wait to be recorded: %s", error)
        self._keep(undecided)
        if dropped := self._dropped - self._told_dropped:
            logger.warning("%d responses to campaigns were dropped: %d wait already", dropped, len(self._noted))
            self._told_dropped += dropped

    def _keep(self, undecided: list[Response]) -> None:
        since_ms = (time.time() - UNDECIDED.total_seconds()) * 1000
        young = [response for response in undecided if response.at_ms >= since_ms]
        self._noted.extend(young[: max(0, MOST_NOTED - len(self._noted))])
