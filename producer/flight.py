"""The books of ``enqueue_many``: which jobs are under way, how many are safe, which are not. No I/O, no waiting.

Jobs land in the order in which they took off. The clients keep no more under way than the publisher's window holds,
so that memory is bounded whatever the length of the iterable, also when one queue lags and the others do not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Final

from broker.errors import EnqueueManyError, RabbitMQError
from broker.job import Job

# Enough to enqueue again what failed in one window; beyond that a list of ids is of no use in an exception.
MAX_FAILED_IDS: Final = 1000


class Flight:
    """Belongs to one ``enqueue_many``; one thread or task at a time."""

    def __init__(self) -> None:
        self.accepted = 0
        self.failed = 0
        self.failed_ids: list[str] = []
        self.fault: BaseException | None = None
        self._under_way: deque[tuple[Job, Future[None]]] = deque()

    def take_off(self, job: Job, future: Future[None]) -> None:
        self._under_way.append((job, future))

    def __len__(self) -> int:
        """How many are under way."""
        return len(self._under_way)

    def next(self) -> Future[None]:
        """What to wait for next, while any is under way."""
        return self._under_way[0][1]

    def landed(self) -> Iterator[Job]:
        """The jobs that are safe by now, in order, each once. Stops at the first that is still under way."""
        while self._under_way and self._under_way[0][1].done():
            job, future = self._under_way.popleft()
            if (fault := future.exception()) is None:
                self.accepted += 1
                yield job
            else:
                self.lost(job, fault)

    def lost(self, job: Job, fault: BaseException) -> None:
        """The job is not known to be safe."""
        self.fault = self.fault or fault
        self.failed += 1
        if len(self.failed_ids) < MAX_FAILED_IDS:
            self.failed_ids.append(job.id)

    def error(self, fault: BaseException) -> EnqueueManyError:
        """What the caller is told, once everything has landed."""
        reason = str(fault) if isinstance(fault, RabbitMQError) else f"{type(fault).__name__}: {fault}"
        return EnqueueManyError(reason, accepted=self.accepted, failed=self.failed, job_ids=tuple(self.failed_ids))
