"""Streams of the recording clients: a stream is recorded as the messages that show its final text."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from floodgate.broker.errors import ClosedError
from floodgate.broker.messages.job import Job
from floodgate.producer.core import Composer
from floodgate.producer.streaming.calls import StreamJobs
from floodgate.producer.streaming.options import StreamRequest
from floodgate.producer.streaming.plan import StreamPlan
from floodgate.producer.streaming.text import GrowingText

T = TypeVar("T")


class RecordedStream:
    """Collects a text, and records the jobs of its final messages.

    Args:
        take: records a job.
        result: returns a job's simulated result.
    """

    def __init__(
        self, request: StreamRequest, composer: Composer, take: Callable[[Job], Job], result: Callable[[Job], Any]
    ) -> None:
        self._request = request
        self._jobs = StreamJobs(composer, request)
        self._plan = StreamPlan(GrowingText(request.formatting, limit=request.limit), drafts=False)
        self._take = take
        self._result = result
        self._final: tuple[Job, ...] | None = None

    @property
    def final_jobs(self) -> tuple[Job, ...]:
        """The recorded jobs."""
        return self._final or ()

    async def append(self, piece: str) -> None:
        """Add to the text."""
        if self._final is not None:
            raise ClosedError("The stream has ended: begin another one.")
        self._plan.text.append(piece)

    async def finish(self, note: str = "") -> None:
        """Record the jobs, once."""
        if self._final is None:
            calls = self._plan.final_calls(note)
            self._final = tuple(self._take(self._jobs.job(call, self._request.priority, final=True)) for call in calls)

    async def messages(self, seconds: float) -> list[dict[str, Any]]:
        """Return the simulated results."""
        return [self._result(job) for job in self.final_jobs]


class Immediately:
    """Runs coroutines that wait for nothing."""

    def run(self, coroutine: Coroutine[Any, Any, T], timeout_seconds: float | None) -> T:
        """Run a coroutine to its end."""
        try:
            coroutine.send(None)
        except StopIteration as ended:
            result: T = ended.value
            return result
        raise AssertionError("a recorded stream waits for nothing")
