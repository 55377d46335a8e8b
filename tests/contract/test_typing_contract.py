"""Typing and drafts have a budget of their own and never wait, and any job can be shed when it is late."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from floodgate.broker.admission.contract import (
    SHED,
    Admission,
    AlreadyDead,
    AlreadySent,
    Ask,
    CallFamily,
    Decision,
    Go,
    Retrying,
    Scope,
    Sent,
    Standing,
    Wait,
)
from floodgate.broker.admission.policy import policy_of
from floodgate.broker.messages.job import Priority
from tests.admission_bench import HandClock, ask_of, settings_of
from tests.contract.conftest import Opener

NO_ANSWER = Retrying(timedelta(seconds=1), unanswered=True)
SECOND = timedelta(seconds=1)


def typing(chat: int | str | None = 5, priority: str = "interactive", method: str = "sendChatAction") -> Ask:
    return ask_of(chat, priority, method=method)


def worth(ask: Ask, seconds: float) -> Ask:
    return replace(ask, worth=timedelta(seconds=seconds))


def goes(decision: Decision) -> bool:
    assert isinstance(decision, Go | AlreadyDead), decision
    assert isinstance(decision, Go) or decision.reason == SHED
    return isinstance(decision, Go)


def go(admission: Admission, ask: Ask) -> Go:
    decision = admission.admit(ask)
    assert isinstance(decision, Go), decision
    return decision


def permitted(admission: Admission, clock: HandClock, calls: int, *, every: float) -> Sequence[int]:
    """The numbers of the calls that are permitted when typing is asked for at an interval."""
    found = []
    for number in range(calls):
        if goes(admission.admit(typing())):
            found.append(number)
        clock.advance(every)
    return found


def test_a_chat_gets_twenty_in_five_seconds(admission: Admission, clock: HandClock) -> None:
    assert permitted(admission, clock, 50, every=0.1) == list(range(20))
    clock.advance(1)
    assert goes(admission.admit(typing()))


def test_a_chat_gets_forty_in_thirty_seconds(admission: Admission, clock: HandClock) -> None:
    assert len(permitted(admission, clock, 100, every=0.3)) == 40
    clock.advance(1)
    assert goes(admission.admit(typing()))


def test_a_new_store_assumes_that_a_chat_has_used_its_budget(opener: Opener, clock: HandClock) -> None:
    store = opener(policy_of(settings_of()))
    assert permitted(store, clock, 20, every=0.05) == [16], "it regains one each 0.75 s"
    store.vouch_idle("default")
    assert goes(store.admit(typing(6)))


@pytest.mark.parametrize("method", ["sendChatAction", "sendMessageDraft", "sendRichMessageDraft"])
def test_typing_and_drafts_share_the_budget(admission: Admission, method: str) -> None:
    for _ in range(20):
        go(admission, typing(method=method))
    assert not goes(admission.admit(typing()))
    assert goes(admission.admit(typing(6)))


def test_typing_counts_for_nothing_else(admission: Admission) -> None:
    for chat in range(1, 100):
        go(admission, typing(chat))
    go(admission, ask_of(1))
    seen = admission.snapshot("default")
    assert (seen.sent_last_second, seen.sending, seen.not_kept) == (1, 1, {})


def test_typing_joins_no_line_and_holds_up_no_message(admission: Admission) -> None:
    permit = go(admission, typing())
    assert (permit.chat, permit.grant, permit.probe) == ("5", None, False)
    assert admission.waiting("default") == {Priority.INTERACTIVE: 0, Priority.BULK: 0}
    go(admission, ask_of(5, "interactive"))


def test_typing_ends_as_sent_once(admission: Admission) -> None:
    ask = typing()
    admission.settle(ask, Sent(True), go(admission, ask).grant)
    assert admission.admit(ask) == AlreadySent(True)


def test_shed_typing_is_counted_and_not_listed(admission: Admission) -> None:
    admission.pause("default", "5", timedelta(minutes=1), "operator")
    ask = typing()
    assert admission.admit(ask) == admission.admit(ask) == AlreadyDead(SHED)
    record = admission.lookup("default", ask.job_id)
    assert record is not None
    assert (record.standing, record.reason) == (Standing.DEAD, SHED)
    seen = admission.snapshot("default")
    assert (seen.not_kept, list(admission.not_kept("default"))) == ({SHED: 1}, [])


@pytest.mark.parametrize(("message", "behind"), [("interactive", True), ("bulk", False)])
def test_typing_behind_a_message_is_shed(admission: Admission, clock: HandClock, message: str, behind: bool) -> None:
    first = ask_of(5, message)
    permit = go(admission, first)
    assert not goes(admission.admit(typing())), "its call is under way"
    admission.settle(first, Sent(True), permit.grant)
    assert goes(admission.admit(typing()))
    waiting = ask_of(5, message)
    assert isinstance(admission.admit(waiting), Wait)
    assert goes(admission.admit(typing())) is not behind
    assert not goes(admission.admit(typing(priority="bulk")))
    clock.advance(2)
    admission.settle(waiting, Sent(True), go(admission, waiting).grant)
    assert goes(admission.admit(typing()))


def test_a_message_for_another_chat_sheds_nothing(admission: Admission) -> None:
    go(admission, ask_of(6))
    assert goes(admission.admit(typing()))


@pytest.mark.parametrize("chat", ["5", None])
def test_typing_during_a_pause_is_shed(admission: Admission, chat: str | None) -> None:
    admission.pause("default", chat, timedelta(minutes=1), "operator")
    assert not goes(admission.admit(typing()))
    admission.resume("default", chat)
    assert goes(admission.admit(typing()))


def test_typing_during_an_outage_is_shed_and_is_no_probe(admission: Admission, clock: HandClock) -> None:
    for chat in (1, 2, 3):
        ask = ask_of(chat)
        admission.settle(ask, NO_ANSWER, go(admission, ask).grant)
        clock.advance(0.1)
    assert not goes(admission.admit(typing(50)))
    clock.advance(1)
    assert not goes(admission.admit(typing(50)))
    assert go(admission, ask_of(51)).probe


def test_a_429_for_typing_pauses_only_the_typing_of_its_chat(admission: Admission, clock: HandClock) -> None:
    for chat in range(1, 10):
        found = admission.too_many_requests("default", str(chat), timedelta(seconds=3), CallFamily.TYPING)
        assert found is Scope.CHAT
    assert not goes(admission.admit(typing()))
    assert goes(admission.admit(typing(50)))
    go(admission, ask_of(5))
    assert admission.snapshot("default").pauses == ()
    clock.advance(3.2)
    assert goes(admission.admit(typing(6)))


def test_typing_without_a_chat_is_not_limited(admission: Admission) -> None:
    for _ in range(50):
        go(admission, typing(None))


def test_a_name_that_stands_for_a_chat_shares_its_budget(admission: Admission) -> None:
    admission.migrate("default", "@news", "-1005")
    for _ in range(20):
        assert go(admission, typing("@news")).chat == "@news"
    assert not goes(admission.admit(typing(-1005)))


def test_without_limits_typing_is_not_limited(opener: Opener) -> None:
    store = opener(policy_of(settings_of(enabled=False)))
    assert all(goes(store.admit(typing())) for _ in range(50))


def test_a_job_that_would_wait_for_longer_than_it_is_worth_is_shed_at_once(
    admission: Admission, clock: HandClock
) -> None:
    first = ask_of(5)
    admission.settle(first, Sent(True), go(admission, first).grant)
    late, patient, next_one = worth(ask_of(5), 0.5), worth(ask_of(5), 5), ask_of(5)
    assert admission.admit(late) == AlreadyDead(SHED)
    assert isinstance(admission.admit(patient), Wait)
    assert isinstance(admission.admit(next_one), Wait)
    assert admission.snapshot("default").waiting[Priority.BULK] == 2
    clock.advance(1.1)
    admission.settle(patient, Sent(True), go(admission, worth(patient, 3.9)).grant)
    clock.advance(1.1)
    go(admission, next_one)
    assert admission.snapshot("default").not_kept == {SHED: 1}


def test_a_waiting_job_that_becomes_worthless_leaves_its_line(admission: Admission, clock: HandClock) -> None:
    first = ask_of(5)
    admission.settle(first, Sent(True), go(admission, first).grant)
    head, behind = worth(ask_of(5), 2), ask_of(5)
    assert isinstance(admission.admit(head), Wait)
    assert isinstance(admission.admit(behind), Wait)
    clock.advance(2)
    assert admission.admit(worth(head, 0)) == AlreadyDead(SHED)
    go(admission, behind)


def test_a_job_that_is_worth_it_is_sent_at_the_last_moment(admission: Admission) -> None:
    go(admission, worth(ask_of(5), 0.000001))
    assert admission.admit(worth(ask_of(6), 0)) == AlreadyDead(SHED)


def test_a_pause_sheds_what_it_outlasts(admission: Admission) -> None:
    admission.pause("default", None, timedelta(seconds=20), "operator")
    assert admission.admit(worth(ask_of(5), 10)) == AlreadyDead(SHED)
    assert isinstance(admission.admit(worth(ask_of(6), 30)), Wait)
