"""Answers to queries expire within seconds: they wait for no pause and no outage, and are not probes."""

from __future__ import annotations

from datetime import timedelta

import pytest

from floodgate.broker.admission.contract import (
    Admission,
    AlreadySent,
    Ask,
    Dead,
    Go,
    Released,
    Retrying,
    Sent,
    Settlement,
    Wait,
)
from floodgate.broker.messages.method_table import METHODS, Charge
from tests.admission_bench import HandClock, ask_of

NO_ANSWER = Retrying(timedelta(seconds=1), unanswered=True)


def answer(method: str = "answerCallbackQuery") -> Ask:
    return ask_of(None, method=method)


def go(admission: Admission, ask: Ask) -> Go:
    decision = admission.admit(ask)
    assert isinstance(decision, Go), decision
    return decision


def begin_outage(admission: Admission, clock: HandClock) -> None:
    """Makes calls in three chats that get no answer."""
    for chat in (1, 2, 3):
        ask = ask_of(chat)
        admission.settle(ask, NO_ANSWER, go(admission, ask).grant)
        clock.advance(0.1)
    assert admission.snapshot("default").outage is not None


@pytest.mark.parametrize("method", [name for name, each in METHODS.items() if each.charge is Charge.ANSWER])
def test_an_answer_is_sent_while_its_bot_is_paused(admission: Admission, method: str) -> None:
    admission.pause("default", None, timedelta(hours=1), "operator")
    assert isinstance(admission.admit(ask_of(5)), Wait)
    assert isinstance(admission.admit(ask_of(None, method="getMe")), Wait)
    ask = answer(method)
    admission.settle(ask, Sent(True), go(admission, ask).grant)
    assert admission.admit(ask) == AlreadySent(True)
    assert isinstance(admission.admit(ask_of(6)), Wait), "an answer ends no pause"


def test_an_answer_is_sent_during_an_outage_and_is_not_a_probe(admission: Admission, clock: HandClock) -> None:
    begin_outage(admission, clock)
    assert isinstance(admission.admit(ask_of(50)), Wait)
    first, second = answer(), answer()
    assert not go(admission, first).probe
    clock.advance(1)
    assert go(admission, ask_of(51)).probe
    assert not go(admission, second).probe, "at the same moment as the probe"
    decision = admission.admit(ask_of(52))
    assert isinstance(decision, Wait)
    assert decision.why == "outage"


@pytest.mark.parametrize("settlement", [NO_ANSWER, Dead("exhausted", unanswered=True), Released()])
def test_a_failed_answer_does_not_affect_the_probes(
    admission: Admission, clock: HandClock, settlement: Settlement
) -> None:
    begin_outage(admission, clock)
    clock.advance(1)
    probe, ask = ask_of(50), answer()
    granted = go(admission, probe)
    admission.settle(ask, settlement, go(admission, ask).grant)
    decision = admission.admit(ask_of(51))
    assert isinstance(decision, Wait)
    assert decision.delay == timedelta(seconds=1), "the probe is under way"
    admission.settle(probe, NO_ANSWER, granted.grant)
    decision = admission.admit(ask_of(52))
    assert isinstance(decision, Wait)
    assert decision.delay == timedelta(seconds=2)


def test_failed_answers_do_not_begin_an_outage(admission: Admission, clock: HandClock) -> None:
    for chat in (1, 2):
        ask = ask_of(chat)
        admission.settle(ask, NO_ANSWER, go(admission, ask).grant)
    for _ in range(5):
        ask = answer()
        admission.settle(ask, NO_ANSWER, go(admission, ask).grant)
        clock.advance(0.1)
    assert admission.snapshot("default").outage is None


@pytest.mark.parametrize("settlement", [Sent(True), Dead("late"), Retrying(timedelta(seconds=5))])
def test_an_answer_with_a_response_ends_an_outage(
    admission: Admission, clock: HandClock, settlement: Settlement
) -> None:
    begin_outage(admission, clock)
    clock.advance(0.1)
    ask = answer()
    admission.settle(ask, settlement, go(admission, ask).grant)
    assert admission.snapshot("default").outage is None


def test_a_failed_answer_is_retried_during_a_pause_and_made_once(admission: Admission) -> None:
    admission.pause("default", None, timedelta(hours=1), "operator")
    ask = answer()
    admission.settle(ask, NO_ANSWER, go(admission, ask).grant)
    admission.settle(ask, Sent(True), go(admission, ask).grant)
    assert admission.admit(ask) == AlreadySent(True)
