"""Why a chat waits, on both stores, blocking and in batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from floodgate.broker.admission import policy
from floodgate.broker.admission.contract import (
    Admission,
    Ask,
    CallFamily,
    CallUnderWay,
    ChatExplanation,
    Dead,
    Go,
    JobPlace,
    Pause,
    Retrying,
    Scope,
    Sent,
    SlowedChat,
    Standing,
    UnreachableChat,
    Wait,
)
from floodgate.broker.admission.explanation import explain
from floodgate.broker.admission.policy import policy_of
from floodgate.broker.messages.job import Priority
from floodgate.broker.state.redis.admission import RedisAdmission
from floodgate.broker.state.sqlite.admission import SqliteAdmission
from tests import awaited_admission
from tests.admission_bench import HandClock, ask_of, settings_of
from tests.contract.test_status_cost import steps

POLICY = policy_of(settings_of())
GROUP = -1000000000005
SECOND = timedelta(seconds=1)
MARGIN = timedelta(microseconds=policy.CHAT_MARGIN_US)


@pytest.fixture(params=["sqlite", "redis", "sqlite in batches", "redis in batches"])
def admission(request: pytest.FixtureRequest, tmp_path: Path, clock: HandClock) -> Iterator[Admission]:
    """A store with Telegram's limits, whose bot `default` has been idle."""
    store: Admission
    match request.param:
        case "sqlite":
            store = SqliteAdmission(tmp_path / "state.db", POLICY, clock)
        case "redis":
            store = RedisAdmission(request.getfixturevalue("redis_url"), POLICY, clock)
        case "sqlite in batches":
            store = awaited_admission.on_sqlite(tmp_path / "state.db", POLICY, clock)
        case _:
            store = awaited_admission.on_redis(request.getfixturevalue("redis_url"), POLICY, clock)
    store.vouch_idle("default")
    yield store
    store.close()


def send(admission: Admission, ask: Ask) -> Go:
    """Has the job permitted and settled as sent."""
    go = admission.admit(ask)
    assert isinstance(go, Go)
    admission.settle(ask, Sent(True), go.grant)
    return go


def cause(seen: ChatExplanation) -> tuple[str | None, Scope | None]:
    return seen.why, seen.scope


def test_a_chat_without_jobs_waits_for_nothing(admission: Admission) -> None:
    seen = admission.explain("default", "5")
    assert cause(seen) == (None, None)
    assert not seen.known
    assert (seen.lines, seen.call, seen.pause, seen.job) == ((), None, None, None)
    assert seen.chat_free == seen.bot_free == timedelta()


def test_a_paused_chat_waits_for_its_pause(admission: Admission) -> None:
    ask = ask_of(5)
    admission.pause("default", "5", 9 * SECOND, "slow")
    admission.admit(ask)
    seen = admission.explain("default", "5")
    assert cause(seen) == ("pause", Scope.CHAT)
    assert seen.pause == Pause("5", 9 * SECOND, "slow")
    assert seen.chat_free == seen.lines[0].first == 9 * SECOND


def test_a_bots_pause_is_named_as_such(admission: Admission) -> None:
    admission.pause("default", None, 9 * SECOND, "operator")
    admission.admit(ask_of(5))
    seen = admission.explain("default", "5")
    assert cause(seen) == ("pause", Scope.BOT)
    assert seen.bot_pause == Pause(None, 9 * SECOND, "operator")
    assert seen.pause is None
    assert seen.lines[0].first is not None
    assert 9 * SECOND <= seen.bot_free <= seen.lines[0].first < 10 * SECOND


def test_a_chat_waits_for_its_rate_until_the_second_is_over(admission: Admission, clock: HandClock) -> None:
    send(admission, ask_of(5))
    assert isinstance(admission.admit(ask_of(5)), Wait)
    clock.advance(0.25)
    seen = admission.explain("default", "5")
    assert cause(seen) == ("rate", Scope.CHAT)
    assert seen.known
    assert seen.chat_free == seen.lines[0].first == seen.lines[0].due == SECOND + MARGIN - SECOND / 4


def test_a_full_group_minute_is_waited_for(admission: Admission, clock: HandClock) -> None:
    for _ in range(20):
        send(admission, ask_of(GROUP))
        clock.advance(1.1)
    last = ask_of(GROUP)
    for _ in range(40):
        admission.admit(ask_of(GROUP))
    admission.admit(last)
    seen = admission.explain("default", str(GROUP), last.job_id)
    free = 60 - 20 * 1.1 + policy.GROUP_MARGIN_US / policy.SECOND
    assert seen.chat_free == timedelta(seconds=free)
    assert seen.lines[0].length == seen.lines[0].units == 41
    assert seen.lines[0].last == timedelta(seconds=free + 2 * (60 + policy.GROUP_MARGIN_US / policy.SECOND))
    assert seen.job == JobPlace(last.job_id, Standing.WAITING, Priority.BULK, 40, seen.lines[0].last)
    assert cause(seen) == ("line", Scope.CHAT)
    assert cause(admission.explain("default", str(GROUP))) == ("rate", Scope.CHAT)


def test_a_call_in_flight_is_shown_with_its_job_and_its_lease(admission: Admission, clock: HandClock) -> None:
    ask = ask_of(5, lease_seconds=35)
    admission.admit(ask)
    admission.admit(ask_of(5))
    clock.advance(2)
    seen = admission.explain("default", "5")
    assert cause(seen) == ("in-flight", Scope.CHAT)
    assert seen.call == CallUnderWay(ask.job_id, 2 * SECOND, 33 * SECOND)
    assert seen.lines[0].first == timedelta()
    assert admission.explain("default", "5", ask.job_id).job == JobPlace(ask.job_id, Standing.SENDING)


def test_jobs_behind_the_head_wait_for_the_line_and_know_their_place(admission: Admission, clock: HandClock) -> None:
    send(admission, ask_of(5))
    asks = [ask_of(5) for _ in range(4)]
    for ask in asks:
        admission.admit(ask)
    clock.advance(2)
    seen = admission.explain("default", "5", asks[2].job_id)
    line = seen.lines[0]
    assert cause(seen) == ("line", Scope.CHAT)
    assert (line.priority, line.length, line.units, line.head) == (Priority.BULK, 4, 4, asks[0].job_id)
    assert line.age == 2 * SECOND - timedelta(microseconds=1)
    assert line.first == timedelta()
    assert line.last == 3 * (SECOND + MARGIN)
    assert seen.job == JobPlace(asks[2].job_id, Standing.WAITING, Priority.BULK, 2, 2 * (SECOND + MARGIN))


def test_a_head_that_waits_for_its_retry_holds_up_its_line(admission: Admission, clock: HandClock) -> None:
    ask = ask_of(5)
    go = admission.admit(ask)
    assert isinstance(go, Go)
    clock.advance(2)
    admission.settle(ask, Retrying(9 * SECOND), go.grant)
    seen = admission.explain("default", "5")
    assert cause(seen) == ("line", Scope.CHAT)
    assert seen.lines[0].due == seen.lines[0].first == 9 * SECOND
    assert seen.lines[0].missing is None
    clock.advance(19)
    assert admission.explain("default", "5").lines[0].missing == 10 * SECOND


def test_interactive_jobs_go_first_but_for_turns_of_bulk(admission: Admission, clock: HandClock) -> None:
    send(admission, ask_of(5))
    bulk = ask_of(5)
    admission.admit(bulk)
    for _ in range(9):
        admission.admit(ask_of(5, "interactive"))
    clock.advance(1.05)
    seen = admission.explain("default", "5", bulk.job_id)
    interactive, its = seen.lines
    step = SECOND + MARGIN
    assert (interactive.priority, its.priority) == (Priority.INTERACTIVE, Priority.BULK)
    assert interactive.last == (8 + 8 // policy.INTERACTIVE_TURNS) * step
    assert its.first == policy.INTERACTIVE_TURNS * step
    assert cause(seen) == ("line", Scope.CHAT)


def test_a_job_that_waits_for_its_bot_knows_the_jobs_before_it(admission: Admission) -> None:
    turns = [admission.admit(ask_of(chat)) for chat in range(1, 60)]
    assert isinstance(turns[-1], Wait)
    seen = admission.explain("default", "59")
    assert cause(seen) == ("rate", Scope.BOT)
    assert timedelta() < seen.bot_free < turns[-1].delay
    assert seen.lines[0].first == seen.lines[0].due == turns[-1].delay


def test_a_job_that_is_about_to_ask_its_bot_waits_for_those_that_asked_before_it(admission: Admission) -> None:
    ask = ask_of(99)
    go = admission.admit(ask)
    assert isinstance(go, Go)
    turns = [admission.admit(ask_of(chat, "interactive")) for chat in range(1, 80)]
    admission.settle(ask, Retrying(timedelta()), go.grant)
    line = admission.explain("default", "99").lines[0]
    assert isinstance(turns[-1], Wait)
    assert line.due == timedelta()
    assert line.first is not None
    assert line.first > turns[-1].delay > SECOND + MARGIN


def test_during_an_outage_nothing_is_expected(admission: Admission, clock: HandClock) -> None:
    for chat in range(1, 1 + policy.OUTAGE_CHATS):
        ask = ask_of(chat)
        go = admission.admit(ask)
        assert isinstance(go, Go)
        admission.settle(ask, Retrying(SECOND, unanswered=True), go.grant)
    clock.advance(0.5)
    admission.admit(ask_of(9))
    seen = admission.explain("default", "9")
    assert cause(seen) == ("outage", Scope.BOT)
    assert seen.outage == SECOND / 2
    assert seen.lines[0].first is seen.lines[0].last is None


def test_an_unreachable_chat_is_named_with_telegrams_reason(admission: Admission, clock: HandClock) -> None:
    admission.mark_unreachable("default", "5", "Forbidden: bot was blocked by the user")
    clock.advance(3)
    seen = admission.explain("default", "5")
    assert cause(seen) == ("unreachable", Scope.CHAT)
    assert seen.unreachable == UnreachableChat("5", "Forbidden: bot was blocked by the user", 3 * SECOND)


def test_a_migrated_group_is_explained_under_its_new_id(admission: Admission) -> None:
    ask = ask_of(-5)
    admission.pause("default", "-5", 9 * SECOND, "slow")
    admission.admit(ask)
    admission.migrate("default", "-5", str(GROUP))
    seen = admission.explain("default", "-5", ask.job_id)
    assert seen.chat == str(GROUP)
    assert cause(seen) == ("pause", Scope.CHAT)
    assert seen.job is not None
    assert seen.job.units_ahead == 0


def test_a_name_is_explained_as_the_chat_that_it_stands_for(admission: Admission) -> None:
    admission.migrate("default", "@channel", str(GROUP))
    admission.pause("default", str(GROUP), 9 * SECOND, "slow")
    seen = admission.explain("default", "@channel")
    assert (seen.chat, seen.why) == (str(GROUP), "pause")


def test_a_job_that_is_not_in_the_line_has_only_a_standing(admission: Admission) -> None:
    dead, elsewhere = ask_of(5), ask_of(6)
    admission.settle(dead, Dead("content"))
    for ask in (ask_of(5), ask_of(5), ask_of(6), elsewhere):
        admission.admit(ask)
    assert admission.explain("default", "5", dead.job_id).job == JobPlace(dead.job_id, Standing.DEAD)
    assert admission.explain("default", "5", elsewhere.job_id).job == JobPlace(elsewhere.job_id, Standing.WAITING)
    assert admission.explain("default", "5", "unknown").job == JobPlace("unknown", None)


def test_an_explanation_changes_nothing(admission: Admission, clock: HandClock) -> None:
    lost = ask_of(5)
    admission.admit(lost)
    admission.admit(ask_of(5))
    clock.advance(36)  # the lease has ended
    before = admission.snapshot("default")
    seen = admission.explain("default", "5", lost.job_id)
    assert admission.explain("default", "5", lost.job_id) == seen
    assert seen.call == CallUnderWay(lost.job_id, 36 * SECOND, timedelta())
    assert admission.snapshot("default") == before


def test_an_explanation_costs_the_same_for_a_line_of_any_length(tmp_path: Path, clock: HandClock) -> None:
    path = tmp_path / "state.db"
    store = SqliteAdmission(path, POLICY, clock)
    costs = []
    for jobs in (10, 400):
        for _ in range(jobs):
            store.admit(ask_of(5))
        costs.append(steps(path, lambda work: explain(work, "5", None), clock))
    assert costs[1] <= 1.1 * costs[0], costs
    store.close()


def test_a_chat_waits_at_its_learned_pace(admission: Admission, clock: HandClock) -> None:
    admission.too_many_requests("default", "5", SECOND, CallFamily.EDITS)
    clock.advance(1.1)
    edits = [ask_of(5, method="editMessageText", message_id=7) for _ in range(2)]
    send(admission, edits[0])
    assert isinstance(admission.admit(edits[1]), Wait)
    clock.advance(1.5)
    found = admission.explain("default", "5", edits[1].job_id)
    assert cause(found) == ("rate", Scope.CHAT)
    left = 2 * (SECOND + MARGIN) - 1.5 * SECOND
    assert found.slowed == (SlowedChat("5", CallFamily.EDITS, found.slowed[0].interval, left, 298.5 * SECOND),)
    assert found.slowed[0].interval == pytest.approx(2 * (SECOND + MARGIN), abs=0.02 * SECOND)
    assert found.job is not None
    assert found.job.expected == left
    assert admission.explain("default", "6").slowed == ()


def test_of_a_superseded_job_it_says_where_its_successor_stands(admission: Admission, clock: HandClock) -> None:
    send(admission, ask_of(5))
    old, new = (replace(ask_of(5), coalesce="a") for _ in range(2))
    for ask in (old, new):
        admission.admit(ask)
    assert admission.explain("default", "5", old.job_id).job == JobPlace(old.job_id, Standing.WAITING)
    clock.advance(1.1)
    send(admission, new)
    assert admission.explain("default", "5", old.job_id).job == JobPlace(old.job_id, Standing.SENT)
