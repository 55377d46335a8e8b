"""The batches of ``enqueue_many``: filled, submitted, confirmed. No I/O, no waiting; both clients use it.

Jobs are submitted in batches, since a hundred at once cost little more than one. A batch is submitted when it is full,
or when the last one was submitted at least :data:`SUBMIT_SECONDS` ago, so each job of a slow iterable is submitted at
once. If the iterable then pauses, a timer on the event loop submits the jobs added so far. Batches are confirmed in the
order in which they were submitted. The batches in flight never exceed the publisher's window, so memory is bounded
whatever the length of the iterable.

After an error nothing more is submitted: batches in flight are waited for, jobs not yet submitted are dropped, and the
exception says how many.

State: one thread or task adds, submits and waits. The timer may run on another thread, so the next batch, the batches
in flight and the timer's own state are accessed under ``_lock``, which is never held while waiting. The timer submits a
batch only when all earlier ones are confirmed, so no batch overtakes another.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Protocol

from floodgate.broker.amqp.publisher import PublishOutcomes
from floodgate.broker.errors import EnqueueManyError, FloodgateError, RabbitMQError
from floodgate.broker.messages.job import Job
from floodgate.broker.messages.publication import Publication

MAX_BATCH: Final = 100
# A job added at least this long after the last batch was submitted is submitted at once.
SUBMIT_SECONDS: Final = 0.02
# Enough to enqueue the failed jobs of one window again; a longer list is of no use in an exception.
MAX_FAILED_IDS: Final = 1000


class BatchFuture(Protocol):
    """A future, either ``concurrent.futures``' or asyncio's."""

    def done(self) -> bool:
        """Return whether the batch has been settled."""
        ...

    def cancelled(self) -> bool:
        """Return whether the wait was cancelled."""
        ...

    def exception(self) -> BaseException | None:
        """Return the error, if the batch could not be submitted."""
        ...

    def result(self) -> PublishOutcomes:
        """Return an outcome for each job."""
        ...


class BatchTimer(Protocol):
    """Submits a batch after a delay. Implemented by the client's queue declarer."""

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        """Run a function on the connections' event loop after a delay. Safe to call from any thread."""
        ...

    def submit_at_once(self, publications: Sequence[Publication]) -> BatchFuture | None:
        """Publish several messages. Call on that loop. Returns None if the publish window is full."""
        ...


class EnqueueBatch:
    """The batches of one ``enqueue_many``. The module says what the timer may access."""

    def __init__(self, window: int, timer: BatchTimer) -> None:
        self.accepted = 0
        self.failed = 0
        self.failed_ids: list[str] = []
        self.fault: Exception | None = None
        self._window = window
        self._timer = timer
        self._size = max(1, min(MAX_BATCH, window // 4))
        self._lock = threading.Lock()
        self._jobs: list[Job] = []
        self._publications: list[Publication] = []
        self._closed_at = 0.0
        self._timed = False
        self._submitted: deque[tuple[list[Job], BatchFuture]] = deque()

    def add(self, job: Job, publication: Publication) -> bool:
        """Add a job to the next batch. Returns whether to submit it now; otherwise the timer does."""
        with self._lock:
            self._jobs.append(job)
            self._publications.append(publication)
            wait_seconds = self._closed_at + SUBMIT_SECONDS - time.monotonic()
            if len(self._jobs) >= self._size or wait_seconds <= 0:
                return True
            timed, self._timed = self._timed, True
        if not timed:
            self._timer.later(wait_seconds, self._on_time)
        return False

    def close(self) -> tuple[list[Job], list[Publication]]:
        """Close the next batch and return it for submission; empty after an error."""
        with self._lock:
            jobs, publications = self._take()
        if self.fault:
            self.refused(jobs, self.fault)
            return [], []
        return jobs, publications

    def submitted(self, jobs: list[Job], receipt: BatchFuture) -> None:
        """Record that a batch was submitted."""
        with self._lock:
            self._submitted.append((jobs, receipt))

    def refused(self, jobs: list[Job], fault: Exception) -> None:
        """Record that a batch was refused, or not submitted because of an earlier error."""
        for job in jobs:
            self._lost(job, fault)

    def _take(self) -> tuple[list[Job], list[Publication]]:
        batch = self._jobs, self._publications
        self._jobs, self._publications, self._closed_at = [], [], time.monotonic()
        return batch

    def _on_time(self) -> None:
        """On the loop: submit a batch that has waited long enough, and check again later if jobs remain."""
        with self._lock:
            self._timed = bool(self._jobs) and self.fault is None and not self._submit_alone()
            again = self._timed
        if again:
            self._timer.later(SUBMIT_SECONDS, self._on_time)

    def _submit_alone(self) -> bool:
        """Submit the batch from the timer. Returns False if it has to wait for the next check or the next ``add``."""
        if time.monotonic() - self._closed_at < SUBMIT_SECONDS or not all(
            _is_safe(each) for _, each in self._submitted
        ):
            return False
        try:
            receipt = self._timer.submit_at_once(self._publications)
        except (RabbitMQError, ValueError):
            return True  # the caller gets this error when it submits the batch itself
        if receipt is None:
            return False
        jobs, _ = self._take()
        self._submitted.append((jobs, receipt))
        return True

    def awaited(self, *, all_of_them: bool) -> BatchFuture | None:
        """The oldest batch's future, if the caller has to wait: another batch would exceed the window, or all are
        awaited."""
        if not self._submitted or not (all_of_them or (len(self._submitted) + 1) * self._size > self._window):
            return None
        return self._submitted[0][1]

    def confirmed(self) -> Iterator[list[Job]]:
        """Yield the jobs of each batch that were confirmed so far, in order, each once. Stops at the first batch that
        is still in flight."""
        while self._submitted and self._submitted[0][1].done():
            with self._lock:
                jobs, future = self._submitted.popleft()
            safe = []
            for job, fault in zip(jobs, future.result(), strict=True):
                if fault is None:
                    safe.append(job)
                else:
                    self._lost(job, fault)
            self.accepted += len(safe)
            yield safe

    def error(self, fault: Exception) -> EnqueueManyError:
        """The exception for the caller, once nothing is in flight."""
        reason = str(fault) if isinstance(fault, FloodgateError) else f"{type(fault).__name__}: {fault}."
        return EnqueueManyError(reason, accepted=self.accepted, failed=self.failed, job_ids=tuple(self.failed_ids))

    def _lost(self, job: Job, fault: Exception) -> None:
        self.fault = self.fault or fault
        self.failed += 1
        if len(self.failed_ids) < MAX_FAILED_IDS:
            self.failed_ids.append(job.id)


def _is_safe(receipt: BatchFuture) -> bool:
    return receipt.done() and not receipt.cancelled() and receipt.exception() is None and not any(receipt.result())
