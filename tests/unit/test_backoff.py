"""Delays and bounds of retries, with a fixed random number and clock."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import pytest

from floodgate.actors.backoff import CAP, NOT_SENT_CAP, backoff, counted, next_step
from floodgate.actors.outcomes import FailureReason, Retry, Uncertain, dead
from floodgate.broker.admission.contract import Dead, Retrying
from floodgate.broker.messages.job import Job, OnUncertain, new_job

BORN_MS = 1_000_000
NOT_SENT = Retry("connection refused", surely_not_sent=True)
HARMLESS = Retry("HTTP 502", surely_not_sent=False)
UNKNOWN = Uncertain("reset")


@dataclass(frozen=True)
class Bounds:
    max_attempts: int = 4
    max_age_seconds: float = 3600


def _job(**fields: object) -> Job:
    return new_job("sendMessage", {"chat_id": 1, "text": "x"}, now_ms=BORN_MS).model_copy(update=fields)


def _step(job: Job, outcome: Retry | Uncertain, age_seconds: float = 1, draw: float = 0.5) -> Retrying | Dead:
    return next_step(job, outcome, Bounds(), BORN_MS + int(age_seconds * 1000), lambda: draw)


def test_the_ceiling_doubles_with_each_call_up_to_the_cap() -> None:
    nearly_one = [backoff(calls, CAP, 1.0) for calls in (1, 2, 3, 9, 10, 10_000)]
    assert nearly_one == [
        timedelta(seconds=1),
        timedelta(seconds=2),
        timedelta(seconds=4),
        timedelta(seconds=256),
        CAP,
        CAP,
    ]


def test_the_delay_is_drawn_from_the_whole_range() -> None:
    assert backoff(3, CAP, 0.0) == timedelta(0)
    assert backoff(3, CAP, 0.25) == timedelta(seconds=1)


@pytest.mark.parametrize("outcome", [HARMLESS, UNKNOWN])
def test_calls_that_may_have_been_sent_are_bounded_by_attempts(outcome: Retry | Uncertain) -> None:
    assert _step(_job(attempts=2), outcome) == Retrying(timedelta(seconds=2))
    assert _step(_job(attempts=3), outcome) == dead(
        FailureReason.EXHAUSTED, f"4 calls failed and the limit is 4; last call: {outcome.reason}"
    )


def test_calls_that_were_never_sent_use_no_attempt_and_are_not_charged() -> None:
    assert _step(_job(attempts=50, unsent=50), NOT_SENT) == Retrying(NOT_SENT_CAP / 2, charged=False)
    assert isinstance(_step(_job(attempts=50, unsent=50), UNKNOWN), Retrying)
    assert isinstance(_step(_job(attempts=53, unsent=50), UNKNOWN), Dead)


def test_every_failing_job_ends_at_a_maximum_age() -> None:
    assert isinstance(_step(_job(), NOT_SENT, age_seconds=3599), Retrying)
    assert _step(_job(attempts=9, unsent=9), NOT_SENT, age_seconds=3600) == dead(
        FailureReason.EXHAUSTED, "the job was older than 3600 s after 10 calls; last call: connection refused"
    )


def test_a_scheduled_job_ages_from_its_scheduled_time() -> None:
    job = _job(not_before_ms=BORN_MS + 7_200_000)
    assert isinstance(_step(job, HARMLESS, age_seconds=7201), Retrying)
    assert isinstance(_step(job, HARMLESS, age_seconds=7200 + 3600), Dead)


def test_an_error_with_a_low_limit_on_attempts_ends_sooner() -> None:
    few = Retry("failed to get HTTP URL content", surely_not_sent=False, at_most=3)
    assert isinstance(_step(_job(attempts=1), few), Retrying)
    assert isinstance(_step(_job(attempts=2), few), Dead)


def test_a_job_that_must_not_be_sent_twice_is_dead_lettered_if_it_may_have_been_sent() -> None:
    job = _job(on_uncertain=OnUncertain.DEAD_LETTER)
    assert _step(job, UNKNOWN) == dead(FailureReason.UNCERTAIN, "it may have been sent (reset)")
    assert isinstance(_step(job, HARMLESS), Retrying)


def test_a_wait_requested_by_telegram_is_never_shortened() -> None:
    asked = Uncertain("partial", retry_after=timedelta(seconds=40))
    assert _step(_job(), asked, draw=0.0) == Retrying(timedelta(seconds=40))


def test_a_failed_call_is_counted_in_the_job() -> None:
    job = _job(attempts=1)
    assert counted(job, UNKNOWN) == job.model_copy(update={"attempts": 2})
    assert counted(job, NOT_SENT) == job.model_copy(update={"attempts": 2, "unsent": 1})
