"""What a worker notes in the trace of a delivery: why it waits, how it ends. The trace goes where the job goes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from floodgate.actors.outcomes import FailureReason, NothingToDo, Outcome, Retry, dead
from floodgate.actors.settle import Settler
from floodgate.broker.admission.contract import Sent
from floodgate.broker.admission.policy import ask_for
from floodgate.broker.messages.job import Job, new_job, unix_ms
from floodgate.broker.messages.trace_context import carried
from floodgate.broker.process.job_trace import JobTrace
from floodgate.broker.worker.middleware.rate_limit import Deferral, RateLimit
from floodgate.broker.worker.queue_consumer import DeliveredMessage
from tests.unit.test_jobs_not_kept import Desk

HI = {"chat_id": 5, "text": "hi"}
TRACE = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}


class NotedTrace(JobTrace):
    """Keeps what is noted."""

    def __init__(self) -> None:
        self.outcomes: list[str] = []
        self.errors: list[tuple[str, str] | None] = []
        self.waits: list[tuple[str, str]] = []

    def wait(self, cause: str, seconds: float, scope: str) -> None:
        self.waits.append((cause, scope))

    def outcome(self, name: str, error: tuple[str, str] | None = None) -> None:
        self.outcomes.append(name)
        self.errors.append(error)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "state.db")


def run(desk: Desk, act: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        await desk.broker.admission.vouch_idle("default")
        try:
            await act()
        finally:
            await desk.broker.aclose()

    asyncio.run(whole())


def traced(desk: Desk, job: Job) -> tuple[DeliveredMessage, NotedTrace]:
    message, trace = desk.message(job), NotedTrace()
    message.trace = trace
    cast("Any", message.delivery).trace = TRACE
    return message, trace


async def deferred(desk: Desk, job: Job) -> NotedTrace:
    """Admission's notes on a job that it does not permit."""
    message, trace = traced(desk, job)
    with pytest.raises(Deferral):
        await RateLimit().abefore_process_message(desk.broker, message)
    return trace


def test_a_paused_chat_is_the_cause_of_the_wait(desk: Desk) -> None:
    async def act() -> None:
        await desk.broker.admission.pause("default", "5", timedelta(hours=1), "operator")
        trace = await deferred(desk, new_job("sendMessage", HI))
        assert (trace.waits, trace.outcomes) == ([("pause", "chat")], [])

    run(desk, act)


def test_a_job_that_has_ended_says_how(desk: Desk) -> None:
    async def act() -> None:
        late = new_job("sendMessage", HI, worth_until_ms=unix_ms() - 1)
        assert (await deferred(desk, late)).outcomes == ["shed"]
        cancelled = new_job("sendMessage", HI)
        await desk.broker.admission.cancel(ask_for(cancelled, desk.broker.settings))
        assert (await deferred(desk, cancelled)).outcomes == ["cancelled"]
        await desk.broker.admission.pause("default", "5", timedelta(hours=1), "operator")
        old, new = (new_job("sendMessage", HI, coalesce="a") for _ in range(2))
        await deferred(desk, old)
        await deferred(desk, new)
        assert (await deferred(desk, old)).outcomes == ["superseded"]
        expired = await deferred(desk, new_job("sendMessage", HI, expires_ms=unix_ms() - 1))
        assert expired.outcomes == ["dead"] and [error[0] for error in expired.errors if error] == ["expired"]

    run(desk, act)


@pytest.mark.parametrize(
    ("outcome", "noted"),
    [
        (Sent({"message_id": 1}), ["sent"]),
        (NothingToDo("message is not modified", 400), ["nothing-to-do"]),
        (Retry("502", surely_not_sent=True), ["retry"]),
        (dead(FailureReason.CONTENT, "message is too long", 400), ["dead", "dead"]),
        (Retry("502", surely_not_sent=False, at_most=1), ["retry", "dead"]),
    ],
)
def test_the_outcome_of_a_call_is_noted(desk: Desk, outcome: Outcome, noted: list[str]) -> None:
    async def act() -> None:
        job = new_job("sendMessage", HI)
        message, trace = traced(desk, job)
        await RateLimit().abefore_process_message(desk.broker, message)
        await Settler(desk.broker).settle(message, job, outcome)
        assert trace.outcomes == noted
        assert trace.waits == ([("retry", "job")] if noted == ["retry"] else [])

    run(desk, act)


def test_whatever_is_published_of_a_job_stays_in_its_trace(desk: Desk) -> None:
    """A retry and a parked job on the delay ladder, and the dead letters of admission and of a call."""

    async def act() -> None:
        for outcome in (Retry("502", surely_not_sent=True), dead(FailureReason.CONTENT, "message is too long", 400)):
            job = new_job("sendMessage", HI | {"chat_id": 5 + len(desk.wire.published)})
            message, _ = traced(desk, job)
            await RateLimit().abefore_process_message(desk.broker, message)
            await Settler(desk.broker).settle(message, job, outcome)
        await deferred(desk, new_job("sendMessage", HI, expires_ms=unix_ms() - 1))
        await desk.broker.admission.pause("default", "9", timedelta(hours=1), "operator")
        await deferred(desk, new_job("sendMessage", HI | {"chat_id": 9}))
        assert [carried(each.headers) for each in desk.wire.published] == [TRACE] * 4

    run(desk, act)
