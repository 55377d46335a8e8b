"""Of the jobs under one key, the newest supersedes the one before it: in its line, or unseen in RabbitMQ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from floodgate.broker.admission.contract import (
    SHED,
    SUPERSEDED,
    Admission,
    AlreadyDead,
    Ask,
    Dead,
    Go,
    Record,
    Released,
    Retrying,
    Sent,
    Standing,
    Unsettled,
    Wait,
)
from floodgate.broker.admission.policy import ENQUEUED_MOST, ENQUEUED_US, MISSING_GRACE_US
from floodgate.broker.messages.job import Priority
from tests.admission_bench import HandClock, album, ask_of

SHOWN = Sent({"message_id": 1})


def edit(
    key: str = "a",
    chat: int | str = 5,
    priority: str = "interactive",
    *,
    variant: str = "",
    final: bool = False,
    worth: float | None = None,
) -> Ask:
    ask = ask_of(chat, priority, method="editMessageText")
    its = replace(ask, coalesce=key, variant=variant, final=final)
    return its if worth is None else replace(its, worth=timedelta(seconds=worth))


def go(admission: Admission, ask: Ask) -> Go:
    decision = admission.admit(ask)
    assert isinstance(decision, Go), decision
    return decision


def sent(admission: Admission, ask: Ask) -> None:
    admission.settle(ask, SHOWN, go(admission, ask).grant)


def waits(admission: Admission, *asks: Ask) -> None:
    for ask in asks:
        decision = admission.admit(ask)
        assert isinstance(decision, Wait), decision


def length(admission: Admission, priority: Priority = Priority.INTERACTIVE) -> int:
    return admission.waiting("default")[priority]


@pytest.fixture
def busy(admission: Admission) -> Admission:
    """A store whose chat 5 has just received a message."""
    sent(admission, ask_of(5))
    return admission


def test_the_newest_takes_the_place_of_the_one_that_waits(busy: Admission, clock: HandClock) -> None:
    old, between, new = edit(), ask_of(5, "interactive"), edit()
    waits(busy, old, between, new)
    assert busy.admit(old) == AlreadyDead(SUPERSEDED)
    assert length(busy) == 2
    clock.advance(1.1)
    sent(busy, new)
    clock.advance(1.1)
    sent(busy, between)
    assert (busy.snapshot("default").not_kept, list(busy.not_kept("default"))) == ({SUPERSEDED: 1}, [])


def test_of_a_hundred_jobs_under_one_key_the_last_is_sent(busy: Admission, clock: HandClock) -> None:
    asks = [edit() for _ in range(100)]
    waits(busy, *asks)
    assert length(busy) == 1
    clock.advance(1.1)
    sent(busy, asks[-1])
    for ask in asks[:-1]:
        assert busy.admit(ask) == AlreadyDead(SUPERSEDED)
        assert busy.lookup("default", ask.job_id) == Record(Standing.SENT, result=SHOWN.result, chain=asks[0].job_id)
    assert busy.lookup("default", asks[-1].job_id) == Record(Standing.SENT, result=SHOWN.result)


def test_a_superseded_job_stands_where_its_successor_stands(busy: Admission, clock: HandClock) -> None:
    first, second, third = edit(), edit(), edit()
    waits(busy, first, second, third)
    clock.advance(1.1)
    found = [busy.lookup("default", ask.job_id) for ask in (first, second)]
    assert [one and (one.standing, one.chain) for one in found] == [(Standing.WAITING, first.job_id)] * 2
    grant = go(busy, third).grant
    assert busy.lookup("default", first.job_id) == Record(Standing.SENDING, chain=first.job_id)
    busy.settle(third, Dead("bad-request"), grant)
    assert busy.lookup("default", second.job_id) == Record(Standing.DEAD, reason="bad-request", chain=first.job_id)


def test_a_job_that_is_being_sent_is_not_superseded(admission: Admission, clock: HandClock) -> None:
    old, new = edit(), edit()
    grant = go(admission, old).grant
    waits(admission, new)
    admission.settle(old, SHOWN, grant)
    clock.advance(1.1)
    sent(admission, new)
    assert admission.snapshot("default").not_kept == {}


def test_a_job_whose_worker_was_lost_is_not_superseded(admission: Admission, clock: HandClock) -> None:
    old, new = edit(), edit()
    go(admission, old)
    clock.advance(36)
    waits(admission, new)
    assert isinstance(admission.admit(old), Unsettled)


def test_a_job_that_a_worker_handed_back_is_superseded(admission: Admission) -> None:
    old, new = edit(), edit()
    admission.settle(old, Released(), go(admission, old).grant)
    sent(admission, new)
    assert admission.admit(old) == AlreadyDead(SUPERSEDED)


def test_what_supersedes_a_failed_job_waits_for_as_long(admission: Admission, clock: HandClock) -> None:
    old, new, newest = edit(), edit(), edit()
    admission.settle(old, Retrying(timedelta(seconds=8), unanswered=True), go(admission, old).grant)
    clock.advance(2)
    decision = admission.admit(new)
    assert isinstance(decision, Wait)
    assert decision.delay == timedelta(seconds=6)
    clock.advance(3)
    decision = admission.admit(newest)
    assert isinstance(decision, Wait)
    assert decision.delay == timedelta(seconds=3)
    clock.advance(3)
    sent(admission, newest)


def test_a_final_job_is_not_superseded_and_supersedes(busy: Admission, clock: HandClock) -> None:
    old, final, later, newest = edit(), edit(final=True), edit(), edit()
    waits(busy, old, final, later, newest)
    assert busy.admit(old) == busy.admit(later) == AlreadyDead(SUPERSEDED)
    clock.advance(1.1)
    waits(busy, newest)
    sent(busy, final)
    clock.advance(1.1)
    sent(busy, newest)


def test_another_variant_under_the_key_keeps_the_order(busy: Admission, clock: HandClock) -> None:
    text, buttons, newer = (edit(variant=variant) for variant in ("text", "buttons", "text"))
    waits(busy, text, buttons, newer)
    assert length(busy) == 3
    for ask in (text, buttons, newer):
        clock.advance(1.1)
        sent(busy, ask)


@pytest.mark.parametrize("other", [edit("b"), edit(priority="bulk"), ask_of(5, "interactive")])
def test_only_jobs_of_the_same_key_and_priority_are_superseded(busy: Admission, clock: HandClock, other: Ask) -> None:
    old = edit()
    waits(busy, old, other)
    clock.advance(1.1)
    sent(busy, old)


def test_keys_of_other_chats_are_other_keys(admission: Admission) -> None:
    admission.pause("default", None, timedelta(seconds=9), "test")
    waits(admission, edit(chat=5), edit(chat=6))
    assert length(admission) == 2


def test_a_job_that_is_not_worth_its_wait_supersedes_none(busy: Admission, clock: HandClock) -> None:
    old, behind = edit(), ask_of(5, "interactive")
    waits(busy, old, behind)
    assert busy.admit(edit(worth=0.5)) == AlreadyDead(SHED)
    assert length(busy) == 2
    clock.advance(1.1)
    sent(busy, old)
    clock.advance(1.1)
    sent(busy, behind)


def test_a_cancelled_job_is_superseded_by_none(busy: Admission) -> None:
    old, new = edit(), edit()
    waits(busy, old)
    busy.cancel(old)
    waits(busy, new)
    assert busy.admit(old) == AlreadyDead("cancelled")


def test_cancelling_a_superseded_job_leaves_its_successor(busy: Admission, clock: HandClock) -> None:
    old, new = edit(), edit()
    waits(busy, old, new)
    assert busy.cancel(old).standing is Standing.WAITING
    clock.advance(1.1)
    sent(busy, new)


def test_a_superseded_job_is_not_reopened(busy: Admission) -> None:
    old, new = edit(), edit()
    waits(busy, old, new)
    busy.settle(new, Dead("expired"))
    found = busy.reopen("default", old.job_id)
    assert found is not None
    assert found.reason == "expired"
    assert busy.admit(old) == AlreadyDead(SUPERSEDED)


def test_a_job_that_was_stepped_over_is_superseded_and_its_place_regained(busy: Admission, clock: HandClock) -> None:
    old, behind = edit(), ask_of(5, "interactive")
    waits(busy, old, behind)
    clock.advance(3)
    waits(busy, behind)
    clock.advance(MISSING_GRACE_US / 1_000_000 + 1)
    sent(busy, behind)
    clock.advance(1.1)
    new = edit()
    assert length(busy) == 0
    sent(busy, new)
    assert busy.admit(old) == AlreadyDead(SUPERSEDED)
    assert length(busy) == 0


def test_a_migration_keeps_keys(admission: Admission, clock: HandClock) -> None:
    sent(admission, ask_of(-5))
    old = edit(chat=-5)
    waits(admission, old)
    admission.migrate("default", "-5", "-1005")
    new = edit(chat=-1005)
    waits(admission, new)
    assert admission.admit(old) == AlreadyDead(SUPERSEDED)
    assert length(admission) == 1
    clock.advance(1.1)
    assert go(admission, new).chat == "-1005"


def test_the_newest_inherits_its_turn_among_the_bots_jobs(admission: Admission, clock: HandClock) -> None:
    """Otherwise a chat whose text changes often would wait behind all others again and again."""
    chat = 100
    while isinstance(admission.admit(ask_of(chat, "interactive")), Go):
        chat += 1
    old, other = edit(chat=1), ask_of(2, "interactive")
    waits(admission, old)
    clock.advance(0.001)
    waits(admission, other)
    clock.advance(0.001)
    new = edit(chat=1)
    first, second = admission.admit(new), admission.admit(other)
    assert isinstance(first, Wait)
    assert isinstance(second, Wait)
    assert first.delay < second.delay


def test_units_of_the_newest_count_for_the_chat(admission: Admission, clock: HandClock) -> None:
    sent(admission, ask_of(-5))
    small = replace(ask_of(-5), coalesce="a")
    large = replace(album(-5, 6), coalesce="a")
    waits(admission, small, large)
    clock.advance(1.1)
    sent(admission, large)
    decision = admission.admit(ask_of(-5))
    assert isinstance(decision, Wait)
    assert decision.delay > timedelta(seconds=5)


# Jobs that no worker has received.


def enqueued(admission: Admission, count: int, **kind: Any) -> list[Ask]:
    asks = [edit(**kind) for _ in range(count)]
    for first in range(0, count, ENQUEUED_MOST):
        admission.enqueued("default", asks[first : first + ENQUEUED_MOST])
    return asks


def superseded(admission: Admission, asks: Sequence[Ask]) -> list[int]:
    """The positions of the jobs that were superseded, as far as is known before a worker receives them."""
    found = [admission.lookup("default", ask.job_id) for ask in asks]
    return [place for place, record in enumerate(found) if record is not None and record.chain is not None]


def test_of_a_hundred_jobs_that_no_worker_has_received_the_first_and_the_last_are_sent(
    admission: Admission, clock: HandClock
) -> None:
    asks = enqueued(admission, 100)
    assert superseded(admission, asks) == list(range(1, 99))
    sent(admission, asks[0])
    for ask in asks[1:-1]:
        assert admission.admit(ask) == AlreadyDead(SUPERSEDED)
    clock.advance(1.1)
    sent(admission, asks[-1])
    ends = [admission.lookup("default", ask.job_id) for ask in asks[1:-1]]
    assert ends == [Record(Standing.SENT, result=SHOWN.result, chain=asks[1].job_id)] * 98
    assert admission.snapshot("default").not_kept == {SUPERSEDED: 98}


def test_a_job_that_another_superseded_waits_until_a_worker_has_received_that_one(admission: Admission) -> None:
    asks = enqueued(admission, 3)
    assert admission.lookup("default", asks[1].job_id) == Record(
        Standing.WAITING, due=timedelta(), chain=asks[1].job_id
    )
    assert admission.lookup("default", asks[2].job_id) is None


def test_however_fast_jobs_follow_each_one_that_stays_is_sent(admission: Admission, clock: HandClock) -> None:
    """A worker that is always a few jobs behind sends one of as many, not none."""
    first, *others = enqueued(admission, 5)
    went = []
    for _ in range(20):
        others += enqueued(admission, 1)
        clock.advance(1.1)
        decision = admission.admit(first)
        if isinstance(decision, Go):
            admission.settle(first, SHOWN, decision.grant)
            went.append(first)
        else:
            assert decision == AlreadyDead(SUPERSEDED)
        first = others.pop(0)
    assert 3 <= len(went) <= 5


def test_the_newest_that_was_enqueued_takes_the_place_of_one_that_waits_and_callers_learn_its_end(
    busy: Admission, clock: HandClock
) -> None:
    first, between, *others, last = enqueued(busy, 6)
    in_line = edit()
    waits(busy, in_line, first, last)
    assert length(busy) == 1
    clock.advance(1.1)
    sent(busy, last)
    for ask in (in_line, first, between, *others):
        assert busy.lookup("default", ask.job_id) == Record(Standing.SENT, SHOWN.result, chain=in_line.job_id)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({}, {"variant": "buttons"}),
        ({}, {"key": "b"}),
        ({}, {"priority": "bulk"}),
        ({}, {"chat": 6}),
        ({"final": True}, {}),
    ],
)
def test_only_jobs_of_a_kind_supersede_each_other_unseen(
    admission: Admission, one: dict[str, Any], other: dict[str, Any]
) -> None:
    asks = [*enqueued(admission, 2, **one), *enqueued(admission, 2, **other)]
    assert superseded(admission, asks) == []


def test_a_campaign_supersedes_nothing_of_another(admission: Admission) -> None:
    asks = [replace(edit(), campaign=name) for name in ("spring", "spring", "summer", "summer")]
    admission.enqueued("default", asks)
    assert superseded(admission, asks) == []


def test_what_a_worker_has_received_is_not_superseded_unseen(busy: Admission) -> None:
    first, second = enqueued(busy, 2)
    waits(busy, first, second)
    third, fourth = enqueued(busy, 2)
    assert superseded(busy, [first, second, third, fourth]) == [0]
    assert length(busy) == 1


def test_a_job_that_is_enqueued_twice_supersedes_nothing(admission: Admission) -> None:
    asks = [edit(), edit()]
    for _ in range(3):
        admission.enqueued("default", asks)
    assert superseded(admission, asks) == []


def test_a_first_job_that_no_worker_ever_receives_holds_up_others_for_minutes_only(
    admission: Admission, clock: HandClock
) -> None:
    lost, second = enqueued(admission, 2)
    clock.advance(ENQUEUED_US / 1_000_000)
    third, fourth, fifth = enqueued(admission, 3)
    assert superseded(admission, [lost, second, third, fourth, fifth]) == [3]
