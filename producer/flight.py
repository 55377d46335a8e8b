"""The books of ``enqueue_many``: what boards, leaves and lands. No I/O, no waiting; both clients keep them.

Jobs leave in batches, since handing over a hundred at once costs little more than one. A batch leaves when it is full
or the last one left a moment ago, so that an iterable which yields a job now and then has each leave at once. If the
iterable then takes its time, a timer on the event loop sees to it that what has boarded does not wait for its next job.
Batches land in the order in which they left. No more are under way than the publisher's window holds, so memory is
bounded whatever the length of the iterable.

After a fault nothing leaves any more: what is under way lands, what has boarded is lost, and the error tells it all.

State: one thread or task boards, leaves and lands. The timer may be on another thread, so the next batch, what is under
way and the timer's own state are touched under ``_lock``, which nobody holds while waiting. The timer hands a batch
over only when all before it are safe: so none overtakes another.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Protocol

from floodgate.broker.errors import EnqueueManyError, FloodgateError, RabbitMQError
from floodgate.broker.messages.job import Job
from floodgate.broker.messages.publication import Publication

MAX_BATCH: Final = 100
# A job boards at least this long after the last batch left: it need not wait for company.
LEAVE_SECONDS: Final = 0.02
# Enough to enqueue again what failed in one window; beyond that a list of ids is of no use in an exception.
MAX_FAILED_IDS: Final = 1000

Outcomes = tuple[RabbitMQError | None, ...]


class Receipt(Protocol):
    """A future of either kind, a thread's or an event loop's."""

    def done(self) -> bool: ...

    def cancelled(self) -> bool: ...

    def exception(self) -> BaseException | None: ...

    def result(self) -> Outcomes: ...


class Timetable(Protocol):
    """What a flight needs to leave by itself: the client's outlet."""

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        """Run a call on the event loop of the connections after a while. Any thread may ask."""
        ...

    def submit_at_once(self, publications: Sequence[Publication]) -> Receipt | None:
        """Hand several over, on that loop; None if there is no room for them now."""
        ...


class Flight:
    """Belongs to one ``enqueue_many``; see the module for what its timer may touch."""

    def __init__(self, window: int, timetable: Timetable) -> None:
        self.accepted = 0
        self.failed = 0
        self.failed_ids: list[str] = []
        self.fault: Exception | None = None
        self._window = window
        self._timetable = timetable
        self._size = max(1, min(MAX_BATCH, window // 4))
        self._lock = threading.Lock()
        self._jobs: list[Job] = []
        self._publications: list[Publication] = []
        self._left_at = 0.0
        self._timed = False
        self._under_way: deque[tuple[list[Job], Receipt]] = deque()

    def board(self, job: Job, publication: Publication) -> bool:
        """Add a job to the next batch; whether it is time to leave. If not, the timer sees to it."""
        with self._lock:
            self._jobs.append(job)
            self._publications.append(publication)
            wait_seconds = self._left_at + LEAVE_SECONDS - time.monotonic()
            if len(self._jobs) >= self._size or wait_seconds <= 0:
                return True
            timed, self._timed = self._timed, True
        if not timed:
            self._timetable.later(wait_seconds, self._on_time)
        return False

    def depart(self) -> tuple[list[Job], list[Publication]]:
        """Close the next batch, to be handed over."""
        with self._lock:
            return self._take()

    def leave(self, jobs: list[Job], receipt: Receipt) -> None:
        """The batch was handed over."""
        with self._lock:
            self._under_way.append((jobs, receipt))

    def cancel(self, jobs: list[Job], fault: Exception) -> None:
        """The batch was refused, or shall not leave."""
        for job in jobs:
            self._lost(job, fault)

    def _take(self) -> tuple[list[Job], list[Publication]]:
        batch = self._jobs, self._publications
        self._jobs, self._publications, self._left_at = [], [], time.monotonic()
        return batch

    def _on_time(self) -> None:
        """On the loop: let a batch leave that has waited for long enough, and look again later if there is another."""
        with self._lock:
            self._timed = bool(self._jobs) and self.fault is None and not self._leave_alone()
            again = self._timed
        if again:
            self._timetable.later(LEAVE_SECONDS, self._on_time)

    def _leave_alone(self) -> bool:
        """Whether the batch could leave; it stays for the next look, or for who boards, if not."""
        if time.monotonic() - self._left_at < LEAVE_SECONDS or not all(_is_safe(each) for _, each in self._under_way):
            return False
        try:
            receipt = self._timetable.submit_at_once(self._publications)
        except (RabbitMQError, ValueError):
            return True  # the caller is told when it hands them over itself
        if receipt is None:
            return False
        jobs, _ = self._take()
        self._under_way.append((jobs, receipt))
        return True

    def awaited(self, *, all_of_them: bool) -> Receipt | None:
        """What to wait for before going on: the oldest batch, if another would exceed the window or all shall land."""
        if not self._under_way or not (all_of_them or (len(self._under_way) + 1) * self._size > self._window):
            return None
        return self._under_way[0][1]

    def landed(self) -> Iterator[Job]:
        """The jobs that are safe by now, in order, each once. Stops at the first batch that is still under way."""
        while self._under_way and self._under_way[0][1].done():
            with self._lock:
                jobs, future = self._under_way.popleft()
            for job, fault in zip(jobs, future.result(), strict=True):
                if fault is None:
                    self.accepted += 1
                    yield job
                else:
                    self._lost(job, fault)

    def error(self, fault: Exception) -> EnqueueManyError:
        """What the caller is told, once everything has landed."""
        reason = str(fault) if isinstance(fault, FloodgateError) else f"{type(fault).__name__}: {fault}."
        return EnqueueManyError(reason, accepted=self.accepted, failed=self.failed, job_ids=tuple(self.failed_ids))

    def _lost(self, job: Job, fault: Exception) -> None:
        self.fault = self.fault or fault
        self.failed += 1
        if len(self.failed_ids) < MAX_FAILED_IDS:
            self.failed_ids.append(job.id)


def _is_safe(receipt: Receipt) -> bool:
    return receipt.done() and not receipt.cancelled() and receipt.exception() is None and not any(receipt.result())
