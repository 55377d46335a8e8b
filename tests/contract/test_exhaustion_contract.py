"""Jobs that are never settled nevertheless end: those that kill their workers, and those that never reach a call."""

from __future__ import annotations

from datetime import timedelta

from floodgate.broker.admission import policy
from floodgate.broker.admission.contract import (
    Admission,
    AlreadyDead,
    Ask,
    Dead,
    Decision,
    Exhausted,
    Go,
    Released,
    Retrying,
    Sent,
    Unsettled,
    Wait,
)
from tests.admission_bench import HandClock, ask_of


def granted(admission: Admission, clock: HandClock, ask: Ask) -> Go:
    """Asks whenever told to, until the job is admitted."""
    for _ in range(20):
        decision = admission.admit(ask)
        if isinstance(decision, Go):
            return decision
        assert isinstance(decision, Wait), decision
        clock.advance(decision.delay)
    raise AssertionError("never admitted")


def lose_worker(admission: Admission, clock: HandClock, ask: Ask) -> Decision:
    """The worker dies during the call; after the lease the job is due again."""
    clock.advance(ask.lease)
    assert isinstance(admission.admit(ask), Unsettled)
    return admission.renew_unsettled(ask)


def test_a_job_that_kills_its_workers_is_exhausted_at_the_limit_on_calls(
    admission: Admission, clock: HandClock
) -> None:
    ask = ask_of(5, max_attempts=3)
    assert isinstance(admission.admit(ask), Go)
    assert isinstance(lose_worker(admission, clock, ask), Go)
    assert isinstance(lose_worker(admission, clock, ask), Go)
    assert lose_worker(admission, clock, ask) == Exhausted(lost=3, handed_back=0)
    assert admission.admit(ask) == Exhausted(lost=3, handed_back=0), "also when its worker dies before the dead letter"


def test_after_an_exhausted_job_the_next_of_its_line_is_sent(admission: Admission, clock: HandClock) -> None:
    ask, later = ask_of(5, max_attempts=1), ask_of(5)
    admission.admit(ask)
    assert isinstance(admission.admit(later), Wait)
    assert isinstance(lose_worker(admission, clock, ask), Exhausted)
    admission.settle(ask, Dead("exhausted"))
    assert admission.admit(ask) == AlreadyDead("exhausted")
    assert isinstance(admission.admit(later), Go)


def test_failed_calls_and_lost_calls_share_one_limit(admission: Admission, clock: HandClock) -> None:
    first = ask_of(5, max_attempts=3)
    go = admission.admit(first)
    assert isinstance(go, Go)
    admission.settle(first, Retrying(timedelta(seconds=1)), go.grant)
    again = ask_of(5, max_attempts=3, job_id=first.job_id, attempts=1)
    granted(admission, clock, again)
    assert isinstance(lose_worker(admission, clock, again), Go)
    assert lose_worker(admission, clock, again) == Exhausted(lost=2, handed_back=0)


def test_calls_that_were_certainly_not_sent_do_not_count(admission: Admission, clock: HandClock) -> None:
    ask = ask_of(5, max_attempts=2, attempts=40, unsent=40)
    granted(admission, clock, ask)
    assert isinstance(lose_worker(admission, clock, ask), Go)
    assert isinstance(lose_worker(admission, clock, ask), Exhausted)


def test_a_settled_call_does_not_count_as_lost(admission: Admission, clock: HandClock) -> None:
    ask = ask_of(5, max_attempts=2)
    for settlement in (Retrying(timedelta()), Retrying(timedelta(), charged=False), Released()) * 3:
        go = granted(admission, clock, ask)
        admission.settle(ask, settlement, go.grant)
    granted(admission, clock, ask)
    assert isinstance(lose_worker(admission, clock, ask), Go)


def test_a_late_settlement_by_a_lost_worker_uncounts_its_call(admission: Admission, clock: HandClock) -> None:
    ask = ask_of(5, max_attempts=1)
    go = granted(admission, clock, ask)
    clock.advance(ask.lease)
    assert isinstance(admission.admit(ask), Unsettled)
    admission.settle(ask, Retrying(timedelta()), go.grant)
    granted(admission, clock, ask)


def test_a_job_that_is_handed_back_a_hundred_times_before_its_call_is_exhausted(
    admission: Admission, clock: HandClock
) -> None:
    ask = ask_of(5)
    for _ in range(policy.HANDED_BACK_MOST):
        admission.settle(ask, Released(), granted(admission, clock, ask).grant)
    decision = admission.admit(ask)
    assert decision == Exhausted(lost=0, handed_back=policy.HANDED_BACK_MOST)
    assert isinstance(decision, Exhausted)
    assert decision.why == "it was handed back 100 times in a row before its call"


def test_a_call_resets_the_count_of_hand_backs(admission: Admission, clock: HandClock) -> None:
    ask = ask_of(5)
    for number in range(policy.HANDED_BACK_MOST + 10):
        settlement = Retrying(timedelta()) if number == 50 else Released()
        admission.settle(ask, settlement, granted(admission, clock, ask).grant)
    granted(admission, clock, ask)


def test_reopening_a_job_resets_its_counts(admission: Admission, clock: HandClock) -> None:
    ask = ask_of(5, max_attempts=1)
    granted(admission, clock, ask)
    assert isinstance(lose_worker(admission, clock, ask), Exhausted)
    admission.settle(ask, Dead("exhausted"))
    admission.reopen("default", ask.job_id)
    go = granted(admission, clock, ask)
    admission.settle(ask, Sent(True), go.grant)


def test_the_reason_explains_the_limit_in_words() -> None:
    assert Exhausted(8, 0).why == "8 workers ended during a call for it; Telegram may have sent it"
