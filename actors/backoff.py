"""Decides when to retry a failed call, and when to stop: functions of the job, the outcome and a random number.

Full jitter: the delay is uniformly distributed between zero and a ceiling, so that calls that failed together in an
outage are not retried together. The ceiling doubles with each call, up to a cap.

Two bounds end a job, and the dead letter says which: ``max_attempts`` bounds the calls that may have reached Telegram,
and ``max_age_seconds`` bounds every failing job. Calls that certainly never left are bounded by age alone and have a
lower cap: a network outage uses up no attempts, and its end is noticed soon.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import timedelta
from typing import Final, Protocol, assert_never

from floodgate.actors.outcomes import FailureReason, Retry, Uncertain, dead
from floodgate.broker.admission.contract import Dead, Retrying
from floodgate.broker.messages.job import Job, OnUncertain

BASE: Final = timedelta(seconds=1)
CAP: Final = timedelta(minutes=5)
NOT_SENT_CAP: Final = timedelta(seconds=30)


class Bounds(Protocol):
    """The settings that bound retries."""

    @property
    def max_attempts(self) -> int:
        """The most calls that may have reached Telegram."""
        ...

    @property
    def max_age_seconds(self) -> float:
        """The age at which a failing job is given up, in seconds."""
        ...


def backoff(calls: int, cap: timedelta, draw: float) -> timedelta:
    """The delay after the ``calls``-th call failed (1, 2, …). ``draw`` is uniformly distributed over 0 ≤ d < 1."""
    doublings = min(max(calls - 1, 0), 30)  # 2³⁰ s exceeds any cap, and fits into a timedelta
    return min(cap, BASE * (1 << doublings)) * draw


def counted(job: Job, outcome: Retry | Uncertain) -> Job:
    """Count the failed call in the job, which is then published for the next attempt."""
    return job.model_copy(update={"attempts": job.attempts + 1, "unsent": job.unsent + _surely_not_sent(outcome)})


def next_step(
    job: Job, outcome: Retry | Uncertain, bounds: Bounds, now_ms: int, draw: Callable[[], float] = random.random
) -> Retrying | Dead:
    """Decide what happens to a job whose call failed.

    Args:
        job: the job as it was when the call was made, with this call not yet counted.
        bounds: the settings that bound retries.
        now_ms: Unix time in milliseconds.
        draw: returns random numbers, uniformly distributed over 0 ≤ d < 1.

    Returns:
        ``Retrying`` with the delay, or ``Dead`` with a description that names the bound.
    """
    if isinstance(outcome, Uncertain) and (outcome.partly or job.on_uncertain is OnUncertain.DEAD_LETTER):
        return dead(FailureReason.UNCERTAIN, f"it may have been sent ({outcome.reason})")
    bound = _bound_reached(counted(job, outcome), outcome, bounds, now_ms)
    if bound is not None:
        return dead(FailureReason.EXHAUSTED, f"{bound}; last call: {outcome.reason}")
    return _again(job.attempts + 1, outcome, draw())


def _bound_reached(job: Job, outcome: Retry | Uncertain, bounds: Bounds, now_ms: int) -> str | None:
    """Name the bound that the job has reached, or None. A scheduled job's age counts from its scheduled time."""
    calls = job.attempts - job.unsent
    at_most = bounds.max_attempts
    if isinstance(outcome, Retry) and outcome.at_most is not None:
        at_most = min(at_most, outcome.at_most)
    if calls >= at_most and not _surely_not_sent(outcome):
        return f"{calls} calls failed and the limit is {at_most}"
    age_ms = now_ms - max(job.created_ms, job.not_before_ms or 0)
    if age_ms >= bounds.max_age_seconds * 1000:
        return f"the job was older than {bounds.max_age_seconds:g} s after {job.attempts} calls"
    return None


def _again(calls: int, outcome: Retry | Uncertain, draw: float) -> Retrying:
    not_sent = _surely_not_sent(outcome)
    delay = backoff(calls, NOT_SENT_CAP if not_sent else CAP, draw)
    if isinstance(outcome, Uncertain) and outcome.retry_after is not None:
        delay = max(delay, outcome.retry_after)
    return Retrying(delay, charged=not not_sent)


def _surely_not_sent(outcome: Retry | Uncertain) -> bool:
    match outcome:
        case Retry():
            return outcome.surely_not_sent
        case Uncertain():
            return False
        case _:
            assert_never(outcome)
