"""The contract of every store for operators: unreachable chats, reopened jobs, and when a job is due."""

from __future__ import annotations

from datetime import timedelta

import pytest

from floodgate.broker.admission import policy
from floodgate.broker.admission.contract import (
    Admission,
    AlreadyDead,
    Dead,
    Go,
    Record,
    Retrying,
    Sent,
    Standing,
    Unreachable,
    UnreachableChat,
    Unsettled,
    Wait,
)
from floodgate.broker.admission.policy import policy_of
from floodgate.broker.messages.job import Priority
from floodgate.broker.settings.model import Settings
from tests.admission_bench import HandClock, ask_of, settings_of
from tests.contract.conftest import Opener

BLOCKED = "Forbidden: bot was blocked by the user"
DAY = timedelta(days=1)


# Unreachable chats.


def test_jobs_for_an_unreachable_chat_are_refused_and_use_no_budget(admission: Admission) -> None:
    admission.mark_unreachable("default", "5", BLOCKED)
    for _ in range(50):
        assert admission.admit(ask_of(5)) == Unreachable(BLOCKED)
    assert not any(admission.snapshot("default").waiting.values())
    assert [type(admission.admit(ask_of(chat))) for chat in range(6, 11)] == [Go] * 5


def test_a_refused_job_can_be_settled_as_dead(admission: Admission) -> None:
    admission.mark_unreachable("default", "5", BLOCKED)
    ask = ask_of(5)
    admission.admit(ask)
    admission.settle(ask, Dead("chat-unreachable"))
    assert admission.admit(ask) == AlreadyDead("chat-unreachable")


def test_a_job_already_in_line_is_also_refused_and_leaves_the_line(admission: Admission) -> None:
    head, behind = ask_of(5), ask_of(5)
    go = admission.admit(head)
    assert isinstance(go, Go)
    assert isinstance(admission.admit(behind), Wait)
    admission.mark_unreachable("default", "5", BLOCKED)
    admission.settle(head, Dead("chat-unreachable"), go.grant)
    assert admission.admit(behind) == Unreachable(BLOCKED)
    admission.settle(behind, Dead("chat-unreachable"))
    assert admission.snapshot("default").longest_lines == ()


def test_a_lost_call_in_an_unreachable_chat_is_detected_when_another_job_is_refused(
    admission: Admission, clock: HandClock
) -> None:
    lost = ask_of(5)
    admission.admit(lost)
    admission.mark_unreachable("default", "5", BLOCKED)
    clock.advance(36)
    for _ in range(2):
        assert isinstance(admission.admit(ask_of(5)), Unreachable)
    assert admission.snapshot("default").waiting[Priority.BULK] == 1
    assert isinstance(admission.admit(lost), Unsettled)
    assert isinstance(admission.renew_unsettled(lost), Unreachable)
    admission.settle(lost, Dead("chat-unreachable"))
    assert admission.snapshot("default").waiting[Priority.BULK] == 0


def test_only_methods_that_are_visible_in_the_chat_are_refused(admission: Admission) -> None:
    admission.mark_unreachable("default", "5", BLOCKED)
    assert isinstance(admission.admit(ask_of(5, method="editMessageText")), Unreachable)
    for method in ("getChat", "deleteMessage", "banChatMember"):
        ask = ask_of(5, method=method)
        go = admission.admit(ask)
        assert isinstance(go, Go), method
        admission.settle(ask, Sent(True), go.grant)
    assert isinstance(admission.admit(ask_of(5)), Unreachable), "those say nothing of who reads the chat"


def test_an_update_from_an_unreachable_chat_resumes_sending(admission: Admission) -> None:
    admission.mark_unreachable("default", "5", BLOCKED)
    assert admission.heard_from("default", "5")
    assert not admission.heard_from("default", "5")
    assert not admission.heard_from("default", "6")
    assert isinstance(admission.admit(ask_of(5)), Go)
    assert not admission.unreachable("default")


def test_an_interactive_job_retries_an_unreachable_chat_after_a_minute_and_success_clears_it(
    admission: Admission, clock: HandClock
) -> None:
    admission.mark_unreachable("default", "5", BLOCKED)
    clock.advance(59)
    assert isinstance(admission.admit(ask_of(5, "interactive")), Unreachable)
    clock.advance(1)
    assert isinstance(admission.admit(ask_of(5)), Unreachable)
    reply = ask_of(5, "interactive")
    go = admission.admit(reply)
    assert isinstance(go, Go)
    admission.settle(reply, Sent({"message_id": 1}), go.grant)
    assert not admission.unreachable("default")
    assert isinstance(admission.admit(ask_of(5)), Wait), "there is a rate again, and no refusal"


def test_a_second_refusal_restarts_the_minute(admission: Admission, clock: HandClock) -> None:
    admission.mark_unreachable("default", "5", BLOCKED)
    clock.advance(61)
    reply = ask_of(5, "interactive")
    go = admission.admit(reply)
    assert isinstance(go, Go)
    admission.mark_unreachable("default", "5", BLOCKED)
    admission.settle(reply, Dead("chat-unreachable"), go.grant)
    assert isinstance(admission.admit(ask_of(5, "interactive")), Unreachable)


def test_a_retried_call_does_not_clear_an_unreachable_chat(admission: Admission, clock: HandClock) -> None:
    admission.mark_unreachable("default", "5", BLOCKED)
    clock.advance(61)
    reply = ask_of(5, "interactive")
    go = admission.admit(reply)
    assert isinstance(go, Go)
    admission.settle(reply, Retrying(timedelta(0)), go.grant)
    assert isinstance(admission.admit(ask_of(5)), Unreachable)


def test_a_batch_of_chats_is_asked_which_are_unreachable(admission: Admission, clock: HandClock) -> None:
    admission.migrate("default", "-100", "-1001")
    for chat in ("5", "7", "-100"):
        admission.mark_unreachable("default", chat, BLOCKED)
    admission.mark_unreachable("other", "6", BLOCKED)
    admission.heard_from("default", "7")
    asked = ["4", "5", "6", "7", "-100", "-1001", "@name"]
    assert list(admission.unreachable_among("default", asked)) == ["5", "-100", "-1001"]
    assert list(admission.unreachable_among("default", [])) == []
    clock.advance(DAY)
    assert list(admission.unreachable_among("default", asked)) == []


def test_an_unreachable_chat_is_forgotten_after_the_configured_time(admission: Admission, clock: HandClock) -> None:
    admission.mark_unreachable("default", "5", BLOCKED)
    clock.advance(DAY - timedelta(seconds=1))
    assert isinstance(admission.admit(ask_of(5)), Unreachable)
    clock.advance(1)
    assert not admission.unreachable("default")
    assert admission.snapshot("default").unreachable == 0
    assert isinstance(admission.admit(ask_of(5)), Go)


def test_with_a_time_of_zero_every_job_is_sent_to_telegram(opener: Opener) -> None:
    store = opener(policy_of(Settings(_env_file=None, unreachable_seconds=0)))
    store.vouch_idle("default")
    store.mark_unreachable("default", "5", BLOCKED)
    assert isinstance(store.admit(ask_of(5)), Go)


def test_each_unreachable_chat_is_listed_once_newest_first(admission: Admission, clock: HandClock) -> None:
    for chat in ("5", "6", "-7", "5"):
        admission.mark_unreachable("default", chat, f"no {chat}")
        clock.advance(10)
    listed = [
        UnreachableChat("5", "no 5", timedelta(seconds=10)),
        UnreachableChat("-7", "no -7", timedelta(seconds=20)),
        UnreachableChat("6", "no 6", timedelta(seconds=30)),
    ]
    assert list(admission.unreachable("default")) == listed
    assert list(admission.unreachable("default", limit=1, offset=1)) == listed[1:2]
    assert not admission.unreachable("other")
    assert admission.snapshot("default").unreachable == 3


def test_an_unreachable_chat_is_listed_under_its_current_id(admission: Admission) -> None:
    admission.migrate("default", "@news", "-1001234567890")
    admission.mark_unreachable("default", "@news", BLOCKED)
    assert isinstance(admission.admit(ask_of(-1001234567890)), Unreachable)
    assert admission.heard_from("default", "@news")


def test_many_chats_can_be_listed_while_the_ledger_deletes_old_rows(opener: Opener, clock: HandClock) -> None:
    store = opener(policy_of(settings_of()))
    for chat in range(1, 301):
        store.mark_unreachable("default", str(chat), BLOCKED)
    clock.advance(policy.CHAT_IDLE_US / policy.SECOND + 1)
    for chat in range(1001, 1301):  # enough settlements for every row to be examined
        store.settle(ask_of(chat), Sent(True))
    assert len(store.unreachable("default")) == 300


# Jobs that an operator replays.


def test_a_reopened_dead_job_counts_as_new(admission: Admission) -> None:
    ask, later = ask_of(5), ask_of(5)
    admission.settle(ask, Dead("content"))
    assert admission.reopen("default", ask.job_id) == Record(Standing.DEAD, reason="content")
    assert admission.lookup("default", ask.job_id) is None
    assert admission.snapshot("default").dead == 0
    assert isinstance(admission.admit(ask), Go)
    assert isinstance(admission.admit(later), Wait)


def test_only_dead_jobs_are_reopened(admission: Admission) -> None:
    sent, waiting = ask_of(5), ask_of(5)
    go = admission.admit(sent)
    assert isinstance(go, Go)
    assert admission.reopen("default", sent.job_id) == Record(Standing.SENDING)
    admission.settle(sent, Sent("yes"), go.grant)
    admission.admit(waiting)
    found = admission.reopen("default", waiting.job_id)
    assert found is not None and found.standing is Standing.WAITING
    assert admission.reopen("default", sent.job_id) == Record(Standing.SENT, result="yes")
    assert admission.lookup("default", sent.job_id) == Record(Standing.SENT, result="yes")
    assert admission.reopen("default", "nobody") is None
    assert admission.snapshot("default").waiting[Priority.BULK] == 1


def test_a_reopened_job_that_dies_again_is_dead_again(admission: Admission) -> None:
    ask = ask_of(5)
    for reason in ("content", "rights"):
        admission.settle(ask, Dead(reason))
        found = admission.reopen("default", ask.job_id)
        assert found == Record(Standing.DEAD, reason=reason)
        assert isinstance(admission.admit(ask), Go | Wait)


# When a waiting job is due.


@pytest.mark.parametrize("paused", ["5", None], ids=["chat", "bot"])
def test_a_waiting_job_has_its_due_time(admission: Admission, clock: HandClock, paused: str | None) -> None:
    admission.pause("default", paused, timedelta(seconds=60), "test")
    ask = ask_of(5)
    assert isinstance(admission.admit(ask), Wait)
    clock.advance(20)
    assert admission.lookup("default", ask.job_id) == Record(Standing.WAITING, due=timedelta(seconds=40))
    clock.advance(100)
    assert admission.lookup("default", ask.job_id) == Record(Standing.WAITING, due=timedelta(0))


def test_a_job_far_back_in_its_line_is_due_when_its_turn_comes(admission: Admission) -> None:
    asks = [ask_of(-1001234567890) for _ in range(41)]
    for ask in asks:
        admission.admit(ask)
    last = admission.lookup("default", asks[-1].job_id)
    assert last is not None and last.due is not None
    assert timedelta(seconds=115) < last.due < timedelta(seconds=130)


# The oldest waiting job.


def test_the_snapshot_tells_the_age_of_the_oldest_job_in_a_line_by_priority(
    admission: Admission, clock: HandClock
) -> None:
    first, second = ask_of(5), ask_of(5)
    go = admission.admit(first)
    assert isinstance(go, Go)
    assert admission.snapshot("default").oldest == {}
    clock.advance(1)
    admission.admit(second)
    clock.advance(2)
    admission.admit(ask_of(6))
    clock.advance(1)
    admission.admit(ask_of(6))
    admission.admit(ask_of(5, "interactive"))
    clock.advance(3)
    assert admission.snapshot("default").oldest == {
        Priority.INTERACTIVE: timedelta(seconds=3),
        Priority.BULK: timedelta(seconds=6),
    }
    admission.cancel(second)
    assert admission.snapshot("default").oldest[Priority.BULK] == timedelta(seconds=3)


def test_a_job_that_goes_back_to_its_line_keeps_its_age(admission: Admission, clock: HandClock) -> None:
    ask = ask_of(5)
    go = admission.admit(ask)
    assert isinstance(go, Go)
    clock.advance(1)
    admission.settle(ask, Retrying(timedelta(seconds=9)), go.grant)
    clock.advance(1)
    assert admission.snapshot("default").oldest == {Priority.BULK: timedelta(seconds=2)}


def test_the_oldest_job_of_a_migrated_group_is_still_found(admission: Admission, clock: HandClock) -> None:
    admission.admit(ask_of(-5))
    clock.advance(1)
    admission.admit(ask_of(-5))
    clock.advance(1)
    admission.migrate("default", "-5", "-1000000000005")
    assert admission.snapshot("default").oldest == {Priority.BULK: timedelta(seconds=1)}


def test_a_read_that_waits_for_the_bot_is_in_no_line_and_is_not_the_oldest_job(admission: Admission) -> None:
    admission.pause("default", None, timedelta(seconds=5), "test")
    assert isinstance(admission.admit(ask_of(5, method="getChat")), Wait)
    assert admission.snapshot("default").oldest == {}
