"""Thousands of callers that wait, one listener for all of them.

Overview. A caller's future stands in ``_waiting`` under its job. A thread listens to how jobs end (``broker.admission.
endings``), picks those that somebody waits for and hands them to the event loop in one batch. While nobody waits it is
parked, and costs nothing.

Nothing is missed: whoever waits stands in the book before the job is published, and after each ``skip`` (when the
thread is woken, or the store was away) every awaited job is looked up once. The same look is taken every
:data:`AUDIT_SECONDS`, for a connection to the store may go silent without breaking.

State: ``_waiting`` is under ``_lock``, futures are touched on the event loop only, everything else is the thread's.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Mapping
from typing import Final

from broker.admission.contract import Admission, Record
from broker.admission.endings import Endings
from broker.errors import StateError
from producer.ledger import ended

logger = logging.getLogger("floodgate.gateway")

AUDIT_SECONDS: Final = 10.0
# One wait at the store; also how soon the thread notices that nobody waits any more, or that it shall stop.
LISTEN_SECONDS: Final = 0.25
RETRY_SECONDS: Final = 0.5
STOP_SECONDS: Final = 5.0

Key = tuple[str, str]  # bot, job id
Found = Mapping[Key, Record]


class Waiting:
    """The book of who waits for what. Made on the event loop that its callers run on."""

    def __init__(self, endings: Endings, store: Admission, bot: str, most: int) -> None:
        self._endings = endings
        self._store = store
        self._bot = bot
        self._most = most
        self._lock = threading.Lock()
        self._waiting: dict[Key, list[asyncio.Future[Record]]] = {}
        self._count = 0
        self._wanted = threading.Event()  # somebody waits, or the end has come
        self._stopped = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._thread: threading.Thread | None = None

    @property
    def full(self) -> bool:
        return self._count >= self._most

    @property
    def count(self) -> int:
        """Callers waiting now."""
        return self._count

    def start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="floodgate-results", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the thread; bounded by :data:`STOP_SECONDS`. Safe to call twice, and unstarted."""
        self._stopped.set()
        self._wanted.set()
        if self._thread is not None:
            self._thread.join(STOP_SECONDS)

    def enter(self, key: Key) -> asyncio.Future[Record]:
        """Wait for a job. Every ``enter`` has its ``leave``."""
        future: asyncio.Future[Record] = self._loop.create_future()
        with self._lock:
            self._waiting.setdefault(key, []).append(future)
            self._count += 1
        self._wanted.set()
        return future

    def leave(self, key: Key, future: asyncio.Future[Record]) -> None:
        future.cancel()  # nothing, if it has its result
        with self._lock:
            others = self._waiting.get(key, [])
            if future in others:
                others.remove(future)
            if not others:
                self._waiting.pop(key, None)
            self._count -= 1

    def awaits(self, key: Key) -> bool:
        """Whether somebody waits for this job at this gateway."""
        return key in self._waiting

    def _run(self) -> None:
        complained = False
        while not self._stopped.is_set():
            self._wanted.wait()
            try:
                self._listen()
                complained = False
            except StateError as error:
                if not complained:
                    logger.warning("results do not come in: %s", error)
                complained = True
                self._stopped.wait(RETRY_SECONDS)
        self._endings.close()

    def _listen(self) -> None:
        """Until nobody waits any more."""
        looked_at = self._begin()
        while not self._stopped.is_set() and not self._park():
            news = self._endings.wait(LISTEN_SECONDS)
            self._hand_over({(one.bot, one.job_id): one.record for one in news})
            if time.monotonic() - looked_at > AUDIT_SECONDS:
                looked_at = self._look_all_up()

    def _begin(self) -> float:
        self._store.lookup(self._bot, "")  # makes the store if it is not there yet
        self._endings.skip()
        return self._look_all_up()

    def _park(self) -> bool:
        with self._lock:
            if self._waiting:
                return False
            if not self._stopped.is_set():
                self._wanted.clear()
            return True

    def _look_all_up(self) -> float:
        with self._lock:
            keys = list(self._waiting)
        records = {key: self._store.lookup(*key) for key in keys}
        self._hand_over({key: record for key, record in records.items() if record is not None and ended(record)})
        return time.monotonic()

    def _hand_over(self, found: Found) -> None:
        with self._lock:
            mine = {key: record for key, record in found.items() if key in self._waiting}
        if mine:
            self._loop.call_soon_threadsafe(self._deliver, mine)

    def _deliver(self, found: Found) -> None:
        for key, record in found.items():
            with self._lock:
                futures = list(self._waiting.get(key, ()))
            for future in futures:
                if not future.done():
                    future.set_result(record)
