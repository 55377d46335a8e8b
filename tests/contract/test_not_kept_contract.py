"""The contract of every store for dead jobs without a dead letter: count them, list the newest, each once."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from floodgate.broker.admission.contract import CANCELLED, Admission, AlreadyDead, Ask, Dead, Go, NotKept, Standing
from floodgate.broker.admission.policy import Policy, policy_of
from tests.admission_bench import HandClock, ask_of, settings_of
from tests.contract.conftest import Opener

REASON = "chat-unreachable"
NOT_KEPT = Dead(REASON, {"error_code": 403, "description": "Forbidden"}, kept=False)
DAY = timedelta(days=1)


def rules(*, most: int = 100, kept: timedelta | None = DAY) -> Policy:
    listed_us = None if kept is None else kept // timedelta(microseconds=1)
    return replace(policy_of(settings_of()), listed=most, listed_us=listed_us)


def end(store: Admission, *asks: Ask) -> None:
    for ask in asks:
        store.settle(ask, NOT_KEPT)


def listed(store: Admission, bot: str = "default") -> list[str]:
    return [job.job_id for job in store.not_kept(bot)]


def test_a_dead_job_without_a_dead_letter_is_counted_and_listed(admission: Admission, clock: HandClock) -> None:
    admitted, never_admitted, kept = ask_of(5), ask_of("@news"), ask_of(7)
    go = admission.admit(admitted)
    assert isinstance(go, Go)
    admission.settle(admitted, NOT_KEPT, go.grant)
    clock.advance(10)
    admission.settle(never_admitted, replace(NOT_KEPT, reason="content"))
    admission.settle(kept, Dead(REASON))
    clock.advance(1)
    assert list(admission.not_kept("default")) == [
        NotKept(never_admitted.job_id, "@news", "content", timedelta(seconds=1)),
        NotKept(admitted.job_id, "5", REASON, timedelta(seconds=11)),
    ]
    seen = admission.snapshot("default")
    assert (seen.not_kept, seen.dead) == ({REASON: 1, "content": 1}, 3)
    assert admission.admit(admitted) == AlreadyDead(REASON)


def test_a_job_is_counted_once_even_if_settled_twice(admission: Admission) -> None:
    ask, sent_before = ask_of(5), ask_of(6)
    admission.settle(sent_before, Dead("content"))
    end(admission, ask, ask, sent_before)
    assert listed(admission) == [ask.job_id]
    assert admission.snapshot("default").not_kept == {REASON: 1}


def test_a_cancelled_job_is_neither_counted_nor_listed_if_its_caller_accounts_for_it(admission: Admission) -> None:
    waiting, unknown, listed_one = ask_of(5), ask_of(5), ask_of(5)
    admission.admit(ask_of(5))
    admission.admit(waiting)
    for ask in (waiting, unknown):
        record = admission.cancel(ask, listed=False)
        assert (record.standing, record.reason) == (Standing.DEAD, CANCELLED)
        assert admission.admit(ask) == AlreadyDead(CANCELLED)
    admission.cancel(listed_one)
    assert listed(admission) == [listed_one.job_id]
    assert admission.snapshot("default").not_kept == {CANCELLED: 1}


def test_a_job_without_a_chat_is_listed_without_one(admission: Admission) -> None:
    ask = ask_of(None, method="getMe")
    end(admission, ask)
    assert [(job.job_id, job.chat) for job in admission.not_kept("default")] == [(ask.job_id, None)]


def test_the_list_is_read_in_pages_newest_first(opener: Opener) -> None:
    store = opener(rules())
    asks = [ask_of(chat) for chat in range(1, 8)]
    end(store, *asks)
    found = [job.job_id for offset in (0, 3, 6) for job in store.not_kept("default", 3, offset)]
    assert found == [ask.job_id for ask in reversed(asks)]
    assert not store.not_kept("default", 3, 9)


def test_the_list_holds_the_newest_jobs_and_the_count_continues(opener: Opener) -> None:
    store = opener(rules(most=3))
    asks = [ask_of(chat) for chat in range(1, 8)]
    end(store, *asks)
    assert listed(store) == [ask.job_id for ask in reversed(asks[-3:])]
    assert store.snapshot("default").not_kept == {REASON: 7}


def test_a_job_is_listed_for_the_retention_of_its_dead_letter(opener: Opener, clock: HandClock) -> None:
    store = opener(rules())
    old, new = ask_of(5), ask_of(6)
    end(store, old)
    clock.advance(DAY - timedelta(seconds=1))
    end(store, new)
    assert listed(store) == [new.job_id, old.job_id]
    clock.advance(1)
    assert listed(store) == [new.job_id]
    assert store.snapshot("default").not_kept == {REASON: 2}


@pytest.mark.parametrize("kept", [None, DAY])
def test_an_unlimited_retention_lists_jobs_forever(opener: Opener, clock: HandClock, kept: timedelta | None) -> None:
    store = opener(rules(kept=kept))
    ask = ask_of(5)
    end(store, ask)
    clock.advance(timedelta(days=3000))
    assert listed(store) == ([ask.job_id] if kept is None else [])


def test_each_bot_has_its_own_list(admission: Admission) -> None:
    ours, theirs = ask_of(5), ask_of(5, bot="other")
    end(admission, ours, theirs)
    assert (listed(admission), listed(admission, "other")) == ([ours.job_id], [theirs.job_id])
    assert admission.snapshot("other").not_kept == {REASON: 1}


def test_dropped_dead_letters_are_counted_by_reason(admission: Admission) -> None:
    assert admission.snapshot("default").dropped == {}
    admission.count_dropped("default", "content", 3)
    admission.count_dropped("default", "rights", 1)
    admission.count_dropped("default", "content", 2)
    assert admission.snapshot("default").dropped == {"content": 5, "rights": 1}
    assert admission.snapshot("other").dropped == {}
    assert not admission.not_kept("default")
