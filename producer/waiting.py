"""Thousands who wait for results, one listener for all of them: a client's callers, or a gateway's.

Overview. A caller's future stands in ``_waiting`` under its job. A listener hears how jobs end
(``floodgate.broker.admission. endings``), picks those that somebody waits for and hands them to each event loop in one
batch, to threads one by one. It starts with the first who waits and ends a moment after the last has left, so that it
costs nothing and holds nothing open where nobody waits. It runs on a thread of its own, or on one of the event loop's
executor.

Nothing is missed. Whoever waits is recorded here before the job is published, or looks the job up once after having
entered. After each ``skip`` (when the listener starts, a bot is new, or the store was away) every awaited job is looked
up. The same look is taken every :data:`AUDIT_SECONDS`, for a connection to the store may go silent without breaking,
and between attempts to listen to a store that does not let itself be listened to.

State: the book is under ``_lock``; an asyncio future is touched on its own loop only; the listener belongs to
the thread that runs it. A fork inherits the book but no thread: make another for each process.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import closing, suppress
from typing import Final

from floodgate.broker.admission.contract import Admission, Record, Standing
from floodgate.broker.admission.result_feed import ResultFeed
from floodgate.broker.errors import ClosedError, StateError
from floodgate.broker.process.outages import Backoff, OutageLog

logger = logging.getLogger("floodgate.results")

AUDIT_SECONDS: Final = 10.0
# One wait at the store; also how soon the listener notices a new bot, that nobody waits any more, or that it must end.
LISTEN_SECONDS: Final = 0.25
# Callers that come one after the other find the listener there.
LINGER_SECONDS: Final = 2.0
RETRY_SECONDS: Final = 0.5
LONGEST_RETRY_SECONDS: Final = 5.0
STOP_SECONDS: Final = 5.0

Start = Callable[[Callable[[], None]], object]
JobKey = tuple[str, str]  # bot, job id
Waiter = asyncio.Future[Record] | Future[Record]
WaitResult = Record | ClosedError


def on_a_thread(listen: Callable[[], None]) -> None:
    """Run a listener on a thread of its own."""
    threading.Thread(target=listen, name="floodgate-results", daemon=True).start()


def on_the_loops_executor(listen: Callable[[], None]) -> None:
    """Run a listener on a thread of the running event loop's executor, for as long as somebody waits."""
    asyncio.get_running_loop().run_in_executor(None, listen)


class Waiting:
    """Records who waits for which job. Any thread may use it.

    Parameters:
        listen: opens a listener to the endings of some bots.
        bots: those that are sure to be asked for; others are taken in as they come.
        start: begins to run the listener, which blocks.
        linger_seconds: how long the listener stays when nobody waits.
    """

    def __init__(
        self,
        store: Admission,
        listen: Callable[[Sequence[str]], ResultFeed],
        bots: Iterable[str] = (),
        start: Start = on_a_thread,
        linger_seconds: float = LINGER_SECONDS,
    ) -> None:
        self._store = store
        self._open = listen
        self._start = start
        self._linger_seconds = linger_seconds
        self._stopped = threading.Event()
        self._lock = threading.Lock()  # protects all below
        self._waiting: dict[JobKey, list[Waiter]] = {}
        self._count = 0
        self._empty_since = 0.0
        self._bots = set(bots)
        self._listens = False
        self._idle = threading.Event()  # set while nothing listens
        self._idle.set()

    @property
    def count(self) -> int:
        """Callers waiting now."""
        return self._count

    def awaits(self, key: JobKey) -> bool:
        """Whether somebody waits for this job here."""
        return key in self._waiting

    def enter(self, key: JobKey, future: Waiter) -> None:
        """Let the future have the job's record once it has ended. Every ``enter`` has its ``leave``.

        Raises:
            ClosedError: it was stopped.
        """
        with self._lock:
            if self._stopped.is_set():
                raise _closed()
            self._waiting.setdefault(key, []).append(future)
            self._count += 1
            self._bots.add(key[0])
            if not self._listens:
                self._start(self._run)
                self._listens = True
                self._idle.clear()

    def leave(self, key: JobKey, future: Waiter) -> None:
        with self._lock:
            others = self._waiting.get(key, [])
            if future not in others:
                return
            others.remove(future)
            self._count -= 1
            if not others:
                del self._waiting[key]
            if not self._waiting:
                self._empty_since = time.monotonic()

    def stop(self) -> None:
        """End the listener, bounded by :data:`STOP_SECONDS`, and tell who still waits with a ``ClosedError``.

        Safe to call twice, and unused.
        """
        self.begin_stop()
        self._idle.wait(STOP_SECONDS)
        self._hand_over(dict.fromkeys(self._keys(), _closed()))

    def begin_stop(self) -> None:
        """:meth:`stop` without waiting: let nobody in any more, and have the listener end."""
        self._stopped.set()

    def _run(self) -> None:
        backoff, outage = Backoff(RETRY_SECONDS, LONGEST_RETRY_SECONDS), OutageLog()
        while not self._ends():
            try:
                self._listen()
                backoff.reset()
                outage.end()
            except StateError as error:
                if outage.is_due():
                    logger.warning("the result feed is unavailable: %s", error)
                self._stopped.wait(backoff.next_seconds())

    def _listen(self) -> None:
        """Until nobody waits any more, or somebody waits for another bot's job."""
        with self._lock:
            bots = sorted(self._bots)
        with closing(self._open(bots)) as feed:
            looked_at = self._begin(feed, bots[0])
            while self._wanted() and len(bots) == len(self._bots):
                news = feed.wait(LISTEN_SECONDS)
                self._hand_over({(one.bot, one.job_id): one.record for one in news})
                if time.monotonic() - looked_at > AUDIT_SECONDS:
                    looked_at = self._look_all_up()

    def _begin(self, feed: ResultFeed, bot: str) -> float:
        self._store.lookup(bot, "")  # makes the store if it is not there yet
        try:
            feed.skip()
        finally:  # the fallback, where lookups are answered and listening is not
            looked_at = self._look_all_up()
        return looked_at

    def _wanted(self) -> bool:
        lingers = time.monotonic() - self._empty_since < self._linger_seconds
        return not self._stopped.is_set() and (bool(self._waiting) or lingers)

    def _ends(self) -> bool:
        with self._lock:
            if self._wanted():
                return False
            self._listens = False  # in the same moment: who enters after this starts another
            self._idle.set()
            return True

    def _keys(self) -> list[JobKey]:
        with self._lock:
            return list(self._waiting)

    def _look_all_up(self) -> float:
        records = {key: self._store.lookup(*key) for key in self._keys()}
        self._hand_over({key: record for key, record in records.items() if record is not None and ended(record)})
        return time.monotonic()

    def _hand_over(self, found: Mapping[JobKey, WaitResult]) -> None:
        with self._lock:
            mine = [(future, outcome) for key, outcome in found.items() for future in self._waiting.get(key, ())]
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Waiter, WaitResult]]] = {}
        for future, outcome in mine:
            if isinstance(future, Future):
                _deliver([(future, outcome)])
            else:
                by_loop.setdefault(future.get_loop(), []).append((future, outcome))
        for loop, pairs in by_loop.items():
            with suppress(RuntimeError):  # the loop is closed, and who waited there is gone
                loop.call_soon_threadsafe(_deliver, pairs)


def ended(record: Record | None) -> bool:
    """Whether there is an end to tell of."""
    return record is not None and record.standing in (Standing.SENT, Standing.DEAD)


def _deliver(pairs: list[tuple[Waiter, WaitResult]]) -> None:
    for future, outcome in pairs:
        with suppress(InvalidStateError, asyncio.InvalidStateError):  # told already, or gone in this moment
            if isinstance(outcome, ClosedError):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)


def _closed() -> ClosedError:
    return ClosedError("The client was closed while a result was waited for. The job is safe; ask with another client.")
