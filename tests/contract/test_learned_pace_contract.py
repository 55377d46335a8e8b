"""After a 429 a chat's calls of the same family keep a distance, which shrinks slowly; other families keep theirs."""

from __future__ import annotations

import sqlite3
from datetime import timedelta
from pathlib import Path

import pytest
import redis

from floodgate.broker.admission import policy
from floodgate.broker.admission.contract import (
    SHED,
    Admission,
    AlreadyDead,
    Ask,
    CallFamily,
    Go,
    Released,
    Retrying,
    Scope,
    Sent,
    Wait,
)
from floodgate.broker.admission.policy import policy_of
from floodgate.broker.state.redis.admission import RedisAdmission
from floodgate.broker.state.sqlite.admission import SWEEP_EVERY, SqliteAdmission
from tests.admission_bench import HandClock, album, ask_of, settings_of, upload
from tests.contract.conftest import Opener

WAIT_SECONDS = 5
MESSAGES, EDITS, TYPING = policy.SLOWABLE
FULL = {5: 1.05, -1005: 3.0125}
"""The distance in seconds that keeps the limits of a chat evenly."""


def edit(chat: int | str = 5, priority: str = "interactive") -> Ask:
    return ask_of(chat, priority, method="editMessageText", message_id=7, text="more")


def typing(chat: int | str = 5) -> Ask:
    return ask_of(chat, "interactive", method="sendChatAction", action="typing")


def refuse(store: Admission, clock: HandClock, family: CallFamily = EDITS, chat: int = 5, *, times: int = 1) -> None:
    """Answer 429 to calls of a family, and let the wait pass each time."""
    for _ in range(times):
        assert store.too_many_requests("default", str(chat), timedelta(seconds=WAIT_SECONDS), family) is Scope.CHAT
        clock.advance(WAIT_SECONDS + 0.1)


def send(store: Admission, ask: Ask) -> None:
    decision = store.admit(ask)
    assert isinstance(decision, Go), decision
    store.settle(ask, Sent(True), decision.grant)


def distance(store: Admission, clock: HandClock, first: Ask, second: Ask) -> float:
    """Send one call, and the other as soon as it may; return the seconds between them."""
    send(store, first)
    sent_at = clock.now_us
    while isinstance(decision := store.admit(second), Wait):
        assert decision.scope is Scope.CHAT
        clock.advance(decision.delay)
    assert isinstance(decision, Go), decision
    store.settle(second, Sent(True), decision.grant)
    return (clock.now_us - sent_at) / 1e6


@pytest.mark.parametrize("chat", FULL)
def test_after_a_429_for_an_edit_the_next_edits_keep_twice_the_distance(
    admission: Admission, clock: HandClock, chat: int
) -> None:
    refuse(admission, clock, chat=chat)
    assert distance(admission, clock, edit(chat), edit(chat)) == pytest.approx(2 * FULL[chat], rel=0.01)


@pytest.mark.parametrize("family", [EDITS, TYPING, CallFamily.OTHER])
def test_a_429_for_another_family_leaves_messages_their_pace(
    admission: Admission, clock: HandClock, family: CallFamily
) -> None:
    refuse(admission, clock, family, times=3)
    assert distance(admission, clock, ask_of(5), ask_of(5)) == FULL[5]


def test_a_429_for_a_message_leaves_edits_their_pace(admission: Admission, clock: HandClock) -> None:
    refuse(admission, clock, MESSAGES)
    assert distance(admission, clock, edit(), edit()) == FULL[5]
    clock.advance(60)
    assert distance(admission, clock, ask_of(5), ask_of(5)) > 1.5 * FULL[5]


def test_interactive_messages_go_between_slowed_bulk_edits(admission: Admission, clock: HandClock) -> None:
    refuse(admission, clock, times=3)
    send(admission, edit(priority="bulk"))
    waiting = edit(priority="bulk")
    assert isinstance(admission.admit(waiting), Wait)
    for _ in range(4):
        clock.advance(FULL[5])
        send(admission, ask_of(5, "interactive"))
    assert isinstance(admission.admit(waiting), Wait)


def test_a_message_behind_a_slowed_edit_of_its_priority_keeps_its_place(admission: Admission, clock: HandClock) -> None:
    refuse(admission, clock)
    send(admission, edit())
    waiting, message = edit(), ask_of(5, "interactive")
    assert isinstance(admission.admit(waiting), Wait)
    clock.advance(1.5)
    behind = admission.admit(message)
    assert isinstance(behind, Wait)
    assert behind.why == "line"
    clock.advance(0.6)
    send(admission, waiting)
    clock.advance(FULL[5])
    send(admission, message)


def test_the_wait_itself_pauses_the_whole_chat(admission: Admission, clock: HandClock) -> None:
    admission.too_many_requests("default", "5", timedelta(seconds=WAIT_SECONDS), EDITS)
    held = admission.admit(ask_of(5))
    assert isinstance(held, Wait)
    assert held.why == "pause"


def test_each_429_doubles_the_distance_up_to_a_bound(admission: Admission, clock: HandClock) -> None:
    found = []
    for _ in range(5):
        refuse(admission, clock)
        (slowed,) = admission.snapshot("default").slowed
        found.append(slowed.interval.total_seconds() / FULL[5])
    assert found == pytest.approx([2, 4, 8, 8, 8], rel=0.05)


def test_several_429s_of_one_wait_count_once(admission: Admission, clock: HandClock) -> None:
    for _ in range(5):
        admission.too_many_requests("default", "5", timedelta(seconds=WAIT_SECONDS), TYPING)
        clock.advance(0.1)
    (slowed,) = admission.snapshot("default").slowed
    assert slowed.interval == timedelta(microseconds=2 * policy.rates_of(settings_of().limits).typing[1].span_us // 40)


def test_a_pace_recovers_slowly_and_is_then_forgotten(admission: Admission, clock: HandClock) -> None:
    refuse(admission, clock)
    clock.advance(150)
    assert distance(admission, clock, edit(), edit()) == pytest.approx(1.5 * FULL[5], rel=0.01)
    clock.advance(150)
    seen = admission.snapshot("default")
    assert (seen.slowed, dict(seen.slowed_chats)) == ((), {})
    assert distance(admission, clock, edit(), edit()) == FULL[5]


def test_nothing_recovers_during_the_wait(admission: Admission, clock: HandClock) -> None:
    admission.too_many_requests("default", "5", timedelta(minutes=20), EDITS)
    clock.advance(1200.1)
    assert distance(admission, clock, edit(), edit()) == pytest.approx(2 * FULL[5], rel=0.01)


def test_slowed_typing_is_shed_until_its_next_call(admission: Admission, clock: HandClock) -> None:
    refuse(admission, clock, TYPING, times=3)
    send(admission, typing())
    clock.advance(4)
    assert admission.admit(typing()) == AlreadyDead(SHED)
    clock.advance(2.1)
    send(admission, typing())
    send(admission, typing(6))
    send(admission, typing(6))


def test_an_album_keeps_the_distance_of_all_its_messages(admission: Admission, clock: HandClock) -> None:
    refuse(admission, clock, MESSAGES)
    assert distance(admission, clock, album(5, 3), ask_of(5)) == pytest.approx(6 * FULL[5], rel=0.01)


def test_a_call_that_was_not_made_keeps_no_distance(admission: Admission, clock: HandClock) -> None:
    refuse(admission, clock)
    ask = edit()
    permit = admission.admit(ask)
    assert isinstance(permit, Go)
    admission.settle(ask, Released(), permit.grant)
    send(admission, ask)


def test_a_late_arrival_moves_the_next_call(admission: Admission, clock: HandClock) -> None:
    refuse(admission, clock)
    ask = edit()
    permit = admission.admit(ask)
    assert isinstance(permit, Go)
    clock.advance(0.5)
    admission.settle(ask, Sent(True, late=timedelta(seconds=0.5)), permit.grant)
    (slowed,) = admission.snapshot("default").slowed
    assert slowed.next_call.total_seconds() == pytest.approx(2 * FULL[5], rel=0.02)


def test_a_refused_upload_does_not_move_the_end_of_the_wait(admission: Admission, clock: HandClock) -> None:
    refuse(admission, clock, MESSAGES)
    ask = upload(5)
    permit = admission.admit(ask)
    assert isinstance(permit, Go)
    clock.advance(30)
    admission.too_many_requests("default", "5", timedelta(seconds=WAIT_SECONDS))
    admission.settle(ask, Retrying(timedelta(seconds=WAIT_SECONDS)), permit.grant)
    (slowed,) = admission.snapshot("default").slowed
    assert slowed.next_call == timedelta(seconds=WAIT_SECONDS, microseconds=policy.PAUSE_MARGIN_US)


def test_429s_attributed_to_the_bot_slow_down_no_further_chat(admission: Admission) -> None:
    scopes = [
        admission.too_many_requests("default", str(chat), timedelta(seconds=WAIT_SECONDS)) for chat in range(1, 9)
    ]
    assert scopes[policy.EVIDENCE_CHATS - 1 :] == [Scope.BOT] * (9 - policy.EVIDENCE_CHATS)
    assert admission.snapshot("default").slowed_chats == {MESSAGES: policy.EVIDENCE_CHATS - 1}


def test_a_migrated_chat_keeps_its_pace(admission: Admission, clock: HandClock) -> None:
    refuse(admission, clock, chat=-5)
    admission.migrate("default", "-5", "-1005")
    (slowed,) = admission.snapshot("default").slowed
    assert (slowed.chat, slowed.family) == ("-1005", EDITS)
    assert distance(admission, clock, edit(-1005), edit(-5)) == pytest.approx(2 * FULL[-1005], rel=0.01)


@pytest.mark.parametrize("chat", ["inline:abc", None])
def test_a_call_without_limits_of_its_chat_has_no_pace(admission: Admission, chat: str | None) -> None:
    admission.too_many_requests("default", chat, timedelta(seconds=WAIT_SECONDS), EDITS)
    assert admission.snapshot("default").slowed == ()


def test_without_limits_nothing_is_slowed(opener: Opener) -> None:
    store = opener(policy_of(settings_of(enabled=False)))
    for family in CallFamily:
        store.too_many_requests("default", "5", timedelta(seconds=WAIT_SECONDS), family)
    assert store.snapshot("default").slowed == ()


def test_the_ten_slowest_to_recover_are_shown_and_all_are_counted(admission: Admission, clock: HandClock) -> None:
    for chat in range(1, 13):
        refuse(admission, clock, TYPING if chat == 12 else EDITS, chat)
    refuse(admission, clock, EDITS, 3)
    seen = admission.snapshot("default")
    assert [slowed.chat for slowed in seen.slowed] == ["3", "12", "11", "10", "9", "8", "7", "6", "5", "4"]
    assert seen.slowed_chats == {EDITS: 11, TYPING: 1}


def test_sqlite_sweeps_paces_that_have_recovered(tmp_path: Path, clock: HandClock) -> None:
    path = tmp_path / "state.db"
    store = SqliteAdmission(path, policy_of(settings_of()), clock)
    refuse(store, clock)
    for hours in (0, 1):
        clock.advance(timedelta(hours=hours))
        for _ in range(SWEEP_EVERY):
            clock.advance(2)
            send(store, ask_of(6))
        with sqlite3.connect(path) as db:
            assert db.execute("SELECT count(*) FROM slowed").fetchone() == (1 - hours,)
    store.close()


def test_redis_lets_paces_expire_when_they_have_recovered(redis_url: str, clock: HandClock) -> None:
    store = RedisAdmission(redis_url, policy_of(settings_of()), clock)
    store.too_many_requests("default", "5", timedelta(seconds=WAIT_SECONDS), EDITS)
    with redis.Redis.from_url(redis_url) as server:
        left = [server.pttl(f"floodgate:{{default}}:{key}") for key in ("pace:edits:5", "slowed:edits")]
    assert left == pytest.approx([305_100, 305_100], abs=5000)
    store.close()
