"""While Telegram does not answer a bot, one probe at a time is sent; afterwards it resumes as if after a pause."""

from __future__ import annotations

from datetime import timedelta

import pytest

from floodgate.broker.admission.contract import (
    Admission,
    Ask,
    Dead,
    Go,
    Released,
    Retrying,
    Scope,
    Sent,
    Settlement,
    Wait,
)
from tests.admission_bench import HandClock, ask_of

NO_ANSWER = Retrying(timedelta(seconds=1), unanswered=True)
REFUSED = Retrying(timedelta(seconds=1), charged=False, unanswered=True)


def granted(admission: Admission, clock: HandClock, ask: Ask) -> Go:
    """Asks whenever told to, until the job is admitted."""
    for _ in range(100):
        decision = admission.admit(ask)
        if isinstance(decision, Go):
            return decision
        assert isinstance(decision, Wait), decision
        clock.advance(decision.delay)
    raise AssertionError("never admitted")


def call(admission: Admission, clock: HandClock, ask: Ask, settlement: Settlement, seconds: float = 0) -> Go:
    go = granted(admission, clock, ask)
    clock.advance(seconds)
    admission.settle(ask, settlement, go.grant)
    return go


def outage(admission: Admission, clock: HandClock, settlement: Settlement = NO_ANSWER) -> None:
    """Makes calls in three chats that get no answer."""
    for chat in (1, 2, 3):
        call(admission, clock, ask_of(chat), settlement)
        clock.advance(0.1)


def outage_wait(admission: Admission, ask: Ask) -> timedelta:
    decision = admission.admit(ask)
    assert isinstance(decision, Wait), decision
    assert (decision.scope, decision.why) == (Scope.BOT, "outage")
    return decision.delay


@pytest.mark.parametrize("settlement", [NO_ANSWER, REFUSED, Dead("uncertain", unanswered=True)])
def test_unanswered_calls_in_several_chats_make_the_bot_wait(
    admission: Admission, clock: HandClock, settlement: Settlement
) -> None:
    outage(admission, clock, settlement)
    assert outage_wait(admission, ask_of(50)) == timedelta(seconds=0.9)
    assert admission.snapshot("default").outage == timedelta(seconds=0.1)


def test_failures_in_a_single_chat_do_not_begin_an_outage(admission: Admission, clock: HandClock) -> None:
    ask = ask_of(5)
    for _ in range(20):
        call(admission, clock, ask, NO_ANSWER)
    assert isinstance(admission.admit(ask_of(6)), Go)
    assert admission.snapshot("default").outage is None


@pytest.mark.parametrize("answer", [Sent(True), Dead("content"), Retrying(timedelta(seconds=5))])
def test_an_answer_between_failures_prevents_an_outage(
    admission: Admission, clock: HandClock, answer: Settlement
) -> None:
    for chat in range(1, 21, 2):
        call(admission, clock, ask_of(chat), NO_ANSWER)
        call(admission, clock, ask_of(chat + 1000), NO_ANSWER)
        call(admission, clock, ask_of(chat + 2000), answer)
    assert admission.snapshot("default").outage is None


def test_failures_far_apart_do_not_begin_an_outage(admission: Admission, clock: HandClock) -> None:
    for chat in range(1, 10):
        call(admission, clock, ask_of(chat), NO_ANSWER)
        clock.advance(31)
    assert admission.snapshot("default").outage is None


def test_one_job_at_a_time_probes_at_growing_intervals(admission: Admission, clock: HandClock) -> None:
    outage(admission, clock)
    intervals = []
    for number in range(8):
        asks = [ask_of(1000 + 10 * number + each) for each in range(3)]
        delay = outage_wait(admission, asks[0])
        intervals.append(round(delay.total_seconds()))
        clock.advance(delay)
        go = granted(admission, clock, asks[0])
        assert go.probe
        assert all(outage_wait(admission, ask) <= timedelta(seconds=1) for ask in asks[1:])
        admission.settle(asks[0], NO_ANSWER, go.grant)
    assert intervals == [1, 2, 4, 8, 16, 30, 30, 30]


@pytest.mark.parametrize("settlement", [NO_ANSWER, REFUSED])
def test_an_outage_of_ten_minutes_costs_few_calls(
    admission: Admission, clock: HandClock, settlement: Settlement
) -> None:
    outage(admission, clock, settlement)
    end = clock.now_us + 600_000_000
    waiting = [ask_of(chat) for chat in range(100, 132)]
    calls = 0
    while clock.now_us < end:
        delays = []
        for ask in waiting:
            decision = admission.admit(ask)
            if isinstance(decision, Go):
                calls += 1
                admission.settle(ask, settlement, decision.grant)
            else:
                assert isinstance(decision, Wait)
                delays.append(decision.delay)
        clock.advance(min(delays))
    assert calls <= 30


@pytest.mark.parametrize(
    "answer", [Sent(True), Dead("content", {"error_code": 400, "description": "Bad Request"}), Retrying(timedelta())]
)
def test_any_answer_to_a_probe_ends_the_outage_and_the_bot_resumes_evenly(
    admission: Admission, clock: HandClock, answer: Settlement
) -> None:
    outage(admission, clock)
    clock.advance(10)
    call(admission, clock, ask_of(50), answer)
    assert admission.snapshot("default").outage is None
    decisions = [admission.admit(ask_of(chat)) for chat in range(100, 110)]
    assert [isinstance(decision, Go) for decision in decisions] == [True] + [False] * 9
    assert all(isinstance(one, Wait) and one.why == "rate" for one in decisions[1:])


def test_an_answer_to_a_call_from_before_the_outage_does_not_end_it(admission: Admission, clock: HandClock) -> None:
    early = ask_of(50)
    go = granted(admission, clock, early)
    clock.advance(1)
    outage(admission, clock)
    admission.settle(early, Sent(True), go.grant)
    assert admission.snapshot("default").outage is not None


def test_failures_of_calls_from_before_the_outage_do_not_postpone_the_probe(
    admission: Admission, clock: HandClock
) -> None:
    early = [ask_of(chat) for chat in range(50, 54)]
    grants = [granted(admission, clock, ask).grant for ask in early]
    outage(admission, clock)
    for ask, grant in zip(early, grants, strict=True):
        admission.settle(ask, NO_ANSWER, grant)
    assert outage_wait(admission, ask_of(99)) == timedelta(seconds=0.9)


def test_a_released_probe_passes_its_turn_to_the_next_job(admission: Admission, clock: HandClock) -> None:
    outage(admission, clock)
    clock.advance(1)
    assert call(admission, clock, ask_of(50), Released()).probe
    assert admission.admit(ask_of(51)) == Go("51", clock.now_us, probe=True)


def test_a_probe_of_a_dead_worker_fails_when_its_lease_expires(admission: Admission, clock: HandClock) -> None:
    outage(admission, clock)
    clock.advance(1)
    lost, next_one = ask_of(50, lease_seconds=35), ask_of(51)
    assert granted(admission, clock, lost).probe
    clock.advance(34)
    assert outage_wait(admission, next_one) == timedelta(seconds=1)
    clock.advance(1)
    assert call(admission, clock, next_one, NO_ANSWER).probe
    assert outage_wait(admission, ask_of(52)) == timedelta(seconds=4)


def test_a_line_keeps_its_order_through_an_outage(admission: Admission, clock: HandClock) -> None:
    first, second = ask_of(1), ask_of(1)
    call(admission, clock, first, NO_ANSWER)
    call(admission, clock, ask_of(2), NO_ANSWER)
    call(admission, clock, ask_of(3), NO_ANSWER)
    clock.advance(2)
    decision = admission.admit(second)
    assert isinstance(decision, Wait)
    assert decision.why == "line"
    call(admission, clock, first, Sent(True))
    call(admission, clock, second, Sent(True))


def test_the_job_behind_a_head_waiting_in_an_outage_is_not_asked_for_at_once(
    admission: Admission, clock: HandClock
) -> None:
    outage(admission, clock)
    for chat in range(50, 55):
        call(admission, clock, ask_of(chat), NO_ANSWER)
    head, second = ask_of(60), ask_of(60)
    outage_wait(admission, head)
    decision = admission.admit(second)
    assert isinstance(decision, Wait)
    assert decision.scope is Scope.CHAT
    assert decision.delay > timedelta(seconds=16)


def test_an_operator_can_end_an_outage(admission: Admission, clock: HandClock) -> None:
    outage(admission, clock)
    assert admission.resume("default", None)
    assert admission.snapshot("default").outage is None
    assert isinstance(admission.admit(ask_of(50)), Go)


def test_an_outage_of_one_bot_does_not_stop_other_bots(admission: Admission, clock: HandClock) -> None:
    admission.vouch_idle("other")
    outage(admission, clock)
    assert isinstance(admission.admit(ask_of(50, bot="other")), Go)
