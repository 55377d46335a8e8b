"""The books of ``enqueue_many``: what boards, leaves and lands. No I/O, no waiting; both clients keep them.

Jobs leave in batches, since handing over a hundred at once costs little more than one. A batch leaves when it is full
or the last one left a moment ago, so that an iterable which yields a job now and then has each leave at once. They land
in the order in which they left. No more are under way than the publisher's window holds, so memory is bounded
whatever the length of the iterable.

After a fault nothing leaves any more: what is under way lands, what has boarded is lost, and the error tells it all.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from typing import Final, Protocol

from broker.errors import EnqueueManyError, FloodgateError, RabbitMQError
from broker.job import Job
from broker.publication import Publication

MAX_BATCH: Final = 100
# A job boards at least this long after the last batch left: it need not wait for company.
LEAVE_SECONDS: Final = 0.02
# Enough to enqueue again what failed in one window; beyond that a list of ids is of no use in an exception.
MAX_FAILED_IDS: Final = 1000

Outcomes = tuple[RabbitMQError | None, ...]


class Receipt(Protocol):
    """A future of either kind, a thread's or an event loop's."""

    def done(self) -> bool: ...

    def result(self) -> Outcomes: ...


class Flight:
    """Belongs to one ``enqueue_many``; one thread or task at a time."""

    def __init__(self, window: int) -> None:
        self.accepted = 0
        self.failed = 0
        self.failed_ids: list[str] = []
        self.fault: Exception | None = None
        self._window = window
        self._size = max(1, min(MAX_BATCH, window // 4))
        self._jobs: list[Job] = []
        self._publications: list[Publication] = []
        self._left_at = 0.0
        self._under_way: deque[tuple[list[Job], Receipt]] = deque()

    def board(self, job: Job, publication: Publication) -> bool:
        """Add a job to the next batch; whether it is time to leave."""
        self._jobs.append(job)
        self._publications.append(publication)
        return len(self._jobs) >= self._size or time.monotonic() - self._left_at >= LEAVE_SECONDS

    @property
    def boarded(self) -> list[Publication]:
        """The next batch."""
        return self._publications

    def leave(self, future: Receipt) -> None:
        """The batch was handed over."""
        self._under_way.append((self._jobs, future))
        self._jobs, self._publications, self._left_at = [], [], time.monotonic()

    def cancel(self, fault: Exception) -> None:
        """The batch was refused, or shall not leave."""
        for job in self._jobs:
            self._lost(job, fault)
        self._jobs, self._publications = [], []

    def awaited(self, *, all_of_them: bool) -> Receipt | None:
        """What to wait for before going on: the oldest batch, if another would exceed the window or all shall land."""
        if not self._under_way or not (all_of_them or (len(self._under_way) + 1) * self._size > self._window):
            return None
        return self._under_way[0][1]

    def landed(self) -> Iterator[Job]:
        """The jobs that are safe by now, in order, each once. Stops at the first batch that is still under way."""
        while self._under_way and self._under_way[0][1].done():
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
