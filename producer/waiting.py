"""One listener for thousands of callers that wait for results, in a client or in the gateway.

Overview. A caller's future is registered in ``_waiting`` under its job. A listener reads the result feed
(:mod:`floodgate.broker.admission.result_feed`), picks the jobs that callers wait for, and passes their records to each
event loop in one batch, and to threads one by one. It starts with the first caller and ends shortly after the last has
left, so it costs nothing and keeps nothing open while nobody waits. It runs on a thread of its own, or on a thread of
the event loop's executor.

No result is missed. A caller either registers before its job is published, or looks the job up once after registering.
After each ``skip`` (when the listener starts, a bot is new, or the store was unavailable) every awaited job is looked
up. So it is every :data:`AUDIT_SECONDS`, because a connection to the store may go silent without breaking, and between
attempts to listen to a store whose feed is unavailable.

A caller whose job is superseded waits on, for the end of the job that took its place. It moves once, to the first of
the jobs that superseded each other (``Record.chain``), however many follow; and once more if that one leads to another.

State: the registrations are protected by ``_lock``; an asyncio future is only accessed on its own loop; the listener
belongs to the thread that runs it. A fork inherits the registrations but no thread: create one object per process.
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

from floodgate.broker.admission.contract import SUPERSEDED, Admission, Record, Standing
from floodgate.broker.admission.result_feed import EndedJob, ResultFeed
from floodgate.broker.errors import ClosedError, StateError
from floodgate.broker.process.outages import Backoff, OutageLog

logger = logging.getLogger("floodgate.results")

AUDIT_SECONDS: Final = 10.0
# The longest single wait for the feed. The listener notices a new bot, the last caller's leaving, or a stop after it.
LISTEN_SECONDS: Final = 0.25
# Lets callers that come one after the other share a listener.
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
    """Run a listener on a thread of the running event loop's executor."""
    asyncio.get_running_loop().run_in_executor(None, listen)


class Waiting:
    """Records which callers wait for which jobs. Safe to use from any thread.

    Args:
        listen: opens the result feed of some bots.
        bots: the bots to listen for from the start; others are added when a caller waits for one of their jobs.
        start: starts running the listener, which blocks.
        linger_seconds: how long the listener keeps running while nobody waits.
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
        self._chains: dict[JobKey, set[JobKey]] = {}  # by first job: superseded jobs that are in _waiting
        self._chain_of: dict[JobKey, JobKey] = {}
        self._count = 0
        self._empty_since = 0.0
        self._bots = set(bots)
        self._listens = False
        self._idle = threading.Event()  # set while no listener runs
        self._idle.set()

    @property
    def count(self) -> int:
        """The number of callers that wait now."""
        return self._count

    def awaits(self, key: JobKey) -> bool:
        """Whether a caller waits for this job here."""
        return key in self._waiting

    def enter(self, key: JobKey, future: Waiter) -> None:
        """Register a future, to be resolved with the job's record when the job ends. Each call needs a :meth:`leave`.

        Raises:
            ClosedError: this object was stopped.
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
        """Remove a future that :meth:`enter` registered. Safe to call twice."""
        with self._lock:
            others = self._waiting.get(key, [])
            if future not in others:
                return
            others.remove(future)
            self._count -= 1
            if not others:
                del self._waiting[key]
                self._unchain(key)
            if not self._waiting:
                self._empty_since = time.monotonic()

    def follow(self, key: JobKey, chain: str) -> None:
        """Resolve the futures of the job, and of those that followed it, when the job that superseded it ends. Nothing
        happens if there are none.

        Args:
            chain: as in ``Record.chain``.
        """
        first = (key[0], chain)
        if first == key:
            return
        with self._lock:
            for each in {*self._chains.get(key, ()), *({key} & self._waiting.keys())}:
                self._unchain(each)
                if each != first:
                    self._chains.setdefault(first, set()).add(each)
                    self._chain_of[each] = first

    def _unchain(self, key: JobKey) -> None:
        if (first := self._chain_of.pop(key, None)) is not None:
            self._chains[first].discard(key)
            if not self._chains[first]:
                del self._chains[first]

    def stop(self) -> None:
        """End the listener within :data:`STOP_SECONDS`, and raise ``ClosedError`` in callers that still wait.

        Safe to call twice, and without use.
        """
        self.begin_stop()
        self._idle.wait(STOP_SECONDS)
        self._hand_over(dict.fromkeys(self._keys(), _closed()))

    def begin_stop(self) -> None:
        """:meth:`stop` without waiting: accept no more callers, and tell the listener to end."""
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
        """Listen until nobody waits any more, or a caller waits for a job of another bot."""
        with self._lock:
            bots = sorted(self._bots)
        with closing(self._open(bots)) as feed:
            looked_at = self._begin(feed, bots[0])
            while self._wanted() and len(bots) == len(self._bots):
                results = feed.wait(LISTEN_SECONDS)
                self._hand_over(self._outcomes(results))
                if time.monotonic() - looked_at > AUDIT_SECONDS:
                    looked_at = self._look_all_up()

    def _outcomes(self, results: Sequence[EndedJob]) -> dict[JobKey, WaitResult]:
        found: dict[JobKey, WaitResult] = {}
        for one in results:
            key = (one.bot, one.job_id)
            if one.chain is None:
                found[key] = one.record
            elif one.record.reason == SUPERSEDED:
                self.follow(key, one.chain)
            else:
                first = (one.bot, one.chain)
                with self._lock:
                    followers = *self._chains.get(first, ()), *self._chains.get(key, ())
                    found.update(dict.fromkeys((key, first, *followers), one.record))
        return found

    def _begin(self, feed: ResultFeed, bot: str) -> float:
        self._store.lookup(bot, "")  # creates the store if it does not exist yet
        try:
            feed.skip()
        finally:  # the fallback for a store that answers lookups but has no feed
            looked_at = self._look_all_up()
        return looked_at

    def _wanted(self) -> bool:
        lingers = time.monotonic() - self._empty_since < self._linger_seconds
        return not self._stopped.is_set() and (bool(self._waiting) or lingers)

    def _ends(self) -> bool:
        with self._lock:
            if self._wanted():
                return False
            self._listens = False  # under the same lock: a caller that enters after this starts another listener
            self._idle.set()
            return True

    def _keys(self) -> list[JobKey]:
        with self._lock:
            return list(self._waiting)

    def _look_all_up(self) -> float:
        records = {key: self._store.lookup(*key) for key in self._keys()}
        for key, record in records.items():
            if record is not None and record.chain is not None:
                self.follow(key, record.chain)
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
            with suppress(RuntimeError):  # the loop is closed, and its callers are gone
                loop.call_soon_threadsafe(_deliver, pairs)


def ended(record: Record | None) -> bool:
    """Whether a record is that of a finished job."""
    return record is not None and record.standing in (Standing.SENT, Standing.DEAD)


def _deliver(pairs: list[tuple[Waiter, WaitResult]]) -> None:
    for future, outcome in pairs:
        with suppress(InvalidStateError, asyncio.InvalidStateError):  # already resolved, or cancelled just now
            if isinstance(outcome, ClosedError):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)


def _closed() -> ClosedError:
    return ClosedError("The client was closed while waiting for a result. The job is safe: ask with another client.")
