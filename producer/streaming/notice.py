"""What remains of a stream whose program dies: a delayed job that leaves the text as a message.

It waits in RabbitMQ, is replaced as the text grows, and is withdrawn at the end.
"""

from __future__ import annotations

import logging
from typing import Final

from floodgate.broker.errors import FloodgateError, StateError
from floodgate.broker.messages.job import Job
from floodgate.producer.streaming.calls import StreamJobs
from floodgate.producer.streaming.options import StreamRequest
from floodgate.producer.streaming.pipeline import StreamPipeline
from floodgate.producer.streaming.plan import StreamPlan

logger = logging.getLogger("floodgate.streams")

# What a program that dies leaves in the chat is at most this much older than what it had shown.
RENEW_SECONDS: Final = 5.0


class InterruptionNotice:
    """The notice of one stream. At most two of its jobs are outstanding: the last one and its replacement."""

    def __init__(self, request: StreamRequest, plan: StreamPlan, jobs: StreamJobs, pipeline: StreamPipeline) -> None:
        self._request = request
        self._plan = plan
        self._jobs = jobs
        self._pipeline = pipeline
        self._job: Job | None = None
        self._renewed_at = 0.0

    def due_at(self, shown_at: float) -> float | None:
        """When to renew it, in the loop's time, if the chat shows what it shows since ``shown_at``; None if there is
        nothing to leave."""
        if not self._plan.begun or not (self._plan.drafts or self._request.interrupted is not None):
            return None
        is_new = self._job is not None and shown_at <= self._renewed_at
        return self._renewed_at + (self._request.interrupted_after.total_seconds() / 2 if is_new else RENEW_SECONDS)

    async def renew(self, now: float) -> None:
        """Replace it by one that leaves the text as it is now."""
        call = self._plan.interrupted(self._request.interrupted or "")
        self._renewed_at = now
        if call is None:
            return
        earlier, job = self._job, self._jobs.notice(call, self._request.interrupted_after)
        try:
            await self._pipeline.enqueue(job)
            self._job = job
            if earlier is not None:
                await self._pipeline.withdraw(earlier)
        except FloodgateError as error:
            logger.info("stream %s: its notice is not up to date: %s", self._request.key, error)

    async def withdraw(self) -> None:
        """Withdraw it. Safe to call twice."""
        if (job := self._job) is None:
            return
        self._job = None
        try:
            await self._pipeline.withdraw(job)
        except StateError as error:
            logger.warning("stream %s: its notice may follow the final text: %s", self._request.key, error)
