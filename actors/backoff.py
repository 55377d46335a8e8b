"""When to make a failed call again, and when to stop: functions of the job, the outcome and a drawn number.

Full jitter: a delay is drawn evenly between nothing and the ceiling, so that the calls an outage failed together do not
come back together. The ceiling doubles with each call, up to a cap.

Two bounds end a job, and the dead letter states which: calls that may have reached Telegram are bounded by
``max_attempts``, and every failing job by ``max_age_seconds``. Calls that surely never left are bounded by age alone
and have a lower cap: an outage of the network costs no job its attempts, and its end is noticed soon.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import timedelta
from typing import Final, Protocol, assert_never

from actors.outcomes import Failed, FailureReason, Retry, Unknown
from broker.admission.contract import Retrying
from broker.job import Job, OnUncertain

BASE: Final = timedelta(seconds=1)
CAP: Final = timedelta(minutes=5)
NOT_SENT_CAP: Final = timedelta(seconds=30)


class Bounds(Protocol):
    """The settings that end retries."""

    @property
    def max_attempts(self) -> int: ...
    @property
    def max_age_seconds(self) -> float: ...


def backoff(calls: int, cap: timedelta, draw: float) -> timedelta:
    """How long to wait after the ``calls``-th call failed (1, 2, …). ``draw`` is evenly distributed over 0 ≤ d < 1."""
    doublings = min(max(calls - 1, 0), 30)  # 2³⁰ s is beyond any cap, and within what a timedelta holds
    return min(cap, BASE * (1 << doublings)) * draw


def counted(job: Job, outcome: Retry | Unknown) -> Job:
    """The job with the failed call on its account, as it is published for the next try."""
    unsent = isinstance(outcome, Retry) and outcome.surely_not_sent
    return job.model_copy(update={"attempts": job.attempts + 1, "unsent": job.unsent + unsent})


def next_step(
    job: Job, outcome: Retry | Unknown, bounds: Bounds, now_ms: int, draw: Callable[[], float] = random.random
) -> Retrying | Failed:
    """What becomes of a job whose call failed.

    Args:
        job: as it was when the call was made; the call is not yet counted.
        now_ms: Unix time in milliseconds.
        draw: gives numbers evenly distributed over 0 ≤ d < 1.

    Returns:
        ``Retrying`` with the delay, or ``Failed`` with a description that names the bound.
    """
    match outcome:
        case Unknown(reason) if job.on_uncertain is OnUncertain.DEAD_LETTER:
            return Failed(FailureReason.UNCERTAIN, f"it may have been sent ({reason})")
        case Unknown(reason):
            not_sent, attempts = False, bounds.max_attempts
        case Retry(reason, not_sent, at_most):
            attempts = min(at_most or bounds.max_attempts, bounds.max_attempts)
        case _:
            assert_never(outcome)
    calls = job.attempts + 1
    if not not_sent and calls - job.unsent >= attempts:
        return Failed(FailureReason.EXHAUSTED, f"{calls - job.unsent} of at most {attempts} calls failed ({reason})")
    if (now_ms - job.created_ms) / 1000 >= bounds.max_age_seconds:
        return Failed(FailureReason.EXHAUSTED, f"it failed at an age over {bounds.max_age_seconds:g} s ({reason})")
    delay = backoff(calls, NOT_SENT_CAP if not_sent else CAP, draw())
    if isinstance(outcome, Unknown) and outcome.retry_after is not None:
        delay = max(delay, outcome.retry_after)
    return Retrying(delay, charged=not not_sent)
