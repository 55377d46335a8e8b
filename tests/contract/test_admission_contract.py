"""The contract of every store. The clock is moved by hand, so a test of a minute is instant."""

from __future__ import annotations

import bisect
import itertools
from datetime import timedelta

import pytest

from floodgate.broker.admission import policy
from floodgate.broker.admission.contract import (
    Admission,
    AlreadyDead,
    AlreadySent,
    Ask,
    Dead,
    Decision,
    Go,
    Released,
    Retrying,
    Scope,
    Sent,
    Settlement,
    Standing,
    Unsettled,
    Wait,
)
from floodgate.broker.admission.policy import policy_of
from floodgate.broker.messages.job import Priority
from tests.admission_bench import HandClock, album, ask_of, settings_of, upload
from tests.contract.conftest import Opener

GROUP = -1001234567890
LEASE_SECONDS = 35
CHAT_WINDOW_SECONDS = 1 + policy.CHAT_MARGIN_US / policy.SECOND
PAUSE_POLL_SECONDS = policy.PAUSE_POLL_US / policy.SECOND
LONG_PAUSE = timedelta(weeks=4)
BOT_WINDOW_SECONDS = 1 + policy.BOT_MARGIN_US / policy.SECOND
GRACE_SECONDS = policy.MISSING_GRACE_US / policy.SECOND
RESULT = {"message_id": 7, "chat": {"id": 5}, "text": "ünïcode"}


def seconds(decision: Decision) -> float:
    assert isinstance(decision, Wait), decision
    return decision.delay.total_seconds()


def micros(decision: Decision) -> int:
    assert isinstance(decision, Wait), decision
    return decision.delay // timedelta(microseconds=1)


def sent(admission: Admission, ask: Ask) -> Go:
    """Admits, which must succeed, and settles."""
    decision = admission.admit(ask)
    assert isinstance(decision, Go), decision
    admission.settle(ask, Sent(RESULT), decision.grant)
    return decision


def run(admission: Admission, clock: HandClock, asks: list[Ask], call_seconds: float = 0.1) -> list[tuple[float, Ask]]:
    """Acts as the workers: asks for each job when told to, sends at once, settles after the call. Times start now."""
    start = clock.now_us
    agenda: list[tuple[int, int, Ask, Go | None]] = [(start, number, ask, None) for number, ask in enumerate(asks)]
    log: list[tuple[float, Ask]] = []
    steps = 0
    while agenda:
        steps += 1
        assert steps < 40 * len(asks) + 400, "jobs ask again and again"
        at, number, ask, go = agenda.pop(0)
        clock.now_us = max(clock.now_us, at)
        if go is not None:
            admission.settle(ask, Sent(RESULT), go.grant)
            continue
        decision = admission.admit(ask)
        if isinstance(decision, Go):
            log.append(((clock.now_us - start) / 1e6, ask))
            later = clock.now_us + int(call_seconds * 1e6)
            bisect.insort(agenda, (later, -1, ask, decision), key=lambda entry: entry[:2])
        else:
            later = clock.now_us + micros(decision)
            bisect.insort(agenda, (later, number, ask, None), key=lambda entry: entry[:2])
    return log


def most_in_window(times: list[float], span: float) -> int:
    return max(sum(1 for other in times if at <= other < at + span) for at in times)


# Rates.


def test_an_idle_bot_sends_its_first_messages_at_once(admission: Admission) -> None:
    assert [type(admission.admit(ask_of(chat))) for chat in range(1, 6)] == [Go] * 5


def test_a_broadcast_stays_within_30_a_second_and_uses_97_percent_of_it(admission: Admission, clock: HandClock) -> None:
    times = [at for at, _ in run(admission, clock, [ask_of(chat) for chat in range(1, 151)])]
    assert most_in_window(times, 1.0) <= 30
    assert 90 / (times[140] - times[50]) >= 0.97 * 30


def test_a_chat_gets_one_message_a_second(admission: Admission, clock: HandClock) -> None:
    times = [at for at, _ in run(admission, clock, [ask_of(5) for _ in range(6)])]
    assert most_in_window(times, 1.0) == 1
    assert times[-1] < 5.5


def test_a_group_gets_20_a_minute(admission: Admission, clock: HandClock) -> None:
    times = [at for at, _ in run(admission, clock, [ask_of(GROUP) for _ in range(50)])]
    assert most_in_window(times, 60.0) == 20
    assert times[-1] < 132


def test_a_job_for_a_busy_group_is_parked_once(admission: Admission, clock: HandClock) -> None:
    asks = [ask_of(GROUP) for _ in range(60)]
    waits = {ask.job_id: 0 for ask in asks}
    due = {ask.job_id: clock.now_us for ask in asks}
    pending = list(asks)
    while pending:
        ask = min(pending, key=lambda one: due[one.job_id])
        clock.now_us = max(clock.now_us, due[ask.job_id])
        decision = admission.admit(ask)
        if isinstance(decision, Go):
            admission.settle(ask, Sent(True), decision.grant)
            pending.remove(ask)
        else:
            waits[ask.job_id] += 1
            due[ask.job_id] = clock.now_us + micros(decision)
    assert sum(waits.values()) <= 60


def test_an_album_counts_as_one_message_per_item(admission: Admission, clock: HandClock) -> None:
    sent(admission, album(GROUP, 10))
    clock.advance(11)
    sent(admission, album(GROUP, 10))
    clock.advance(11)
    assert seconds(admission.admit(ask_of(GROUP))) > 35


def test_a_bulk_copy_larger_than_a_window_is_sent_and_leaves_a_debt(admission: Admission, clock: HandClock) -> None:
    copy = ask_of(5, method="copyMessages", message_ids=list(range(100)))
    sent(admission, copy)
    clock.advance(2.5)
    ask = ask_of(6)
    assert isinstance(admission.admit(ask), Wait)
    clock.advance(1.5)
    assert isinstance(admission.admit(ask), Go)


def test_an_action_is_charged_only_to_the_bot(admission: Admission) -> None:
    for _ in range(3):
        sent(admission, ask_of(5, method="deleteMessage", message_id=1))
    assert isinstance(admission.admit(ask_of(5)), Go)
    assert isinstance(admission.admit(ask_of(6)), Go)
    assert isinstance(admission.admit(ask_of(7)), Wait)


def test_reads_and_answers_are_not_charged(admission: Admission) -> None:
    for number in range(100):
        sent(admission, ask_of(None, method="answerCallbackQuery", callback_query_id=str(number)))
    sent(admission, ask_of(5))


def test_an_edit_counts_like_a_message(admission: Admission) -> None:
    sent(admission, ask_of(5))
    edit = ask_of(5, method="editMessageText", message_id=1)
    assert 0.9 < seconds(admission.admit(edit)) < 1.1


@pytest.mark.parametrize("settlement", [Released(), Retrying(timedelta(), charged=False)], ids=["released", "retrying"])
def test_an_unsent_call_without_a_chat_limit_can_be_retried(admission: Admission, settlement: Settlement) -> None:
    ask = ask_of("inline:abc", method="editMessageText")
    first = admission.admit(ask)
    assert isinstance(first, Go)
    admission.settle(ask, settlement, first.grant)
    sent(admission, ask)


def test_an_inline_message_has_no_chat_limit(admission: Admission) -> None:
    for _ in range(5):
        sent(admission, ask_of("inline:abc", method="editMessageText"))


def test_paid_messages_have_their_own_budget(admission: Admission, clock: HandClock) -> None:
    asks = [ask_of(chat, allow_paid_broadcast=True) for chat in range(1, 501)]
    times = [at for at, _ in run(admission, clock, asks)]
    assert times[-1] < 0.6
    assert isinstance(admission.admit(ask_of(9999)), Go)


def test_a_released_send_refunds_its_budget(admission: Admission) -> None:
    ask = ask_of(5)
    go = admission.admit(ask)
    assert isinstance(go, Go)
    admission.settle(ask, Released(), go.grant)
    assert isinstance(admission.admit(ask), Go)
    for chat in range(6, 10):
        sent(admission, ask_of(chat))
    assert isinstance(admission.admit(ask_of(11)), Wait)


def test_a_late_send_counts_from_its_arrival(admission: Admission, clock: HandClock) -> None:
    """Otherwise those admitted a second later would share one second with it, as the Bot API sees it."""
    late = ask_of(5)
    go = admission.admit(late)
    assert isinstance(go, Go)
    clock.advance(0.3)
    admission.settle(late, Sent(RESULT, late=timedelta(seconds=0.2)), go.grant)
    assert seconds(admission.admit(ask_of(5))) == pytest.approx(CHAT_WINDOW_SECONDS - 0.1)

    asks = [ask_of(chat) for chat in range(100, 140)]
    times = [0.2 - 0.3, *(at for at, _ in run(admission, clock, asks))]
    for first, thirtieth in zip(times, times[30:], strict=False):
        assert thirtieth - first >= 1


def test_a_send_is_never_counted_as_arriving_after_its_answer(admission: Admission, clock: HandClock) -> None:
    ask = ask_of(5)
    go = admission.admit(ask)
    assert isinstance(go, Go)
    clock.advance(0.1)
    admission.settle(ask, Sent(RESULT, late=timedelta(seconds=9)), go.grant)
    assert seconds(admission.admit(ask_of(5))) == pytest.approx(CHAT_WINDOW_SECONDS)


def test_a_call_counts_for_its_chat_from_its_latest_possible_arrival(admission: Admission, clock: HandClock) -> None:
    ask = ask_of(5)
    go = admission.admit(ask)
    assert isinstance(go, Go)
    clock.advance(2)
    admission.settle(ask, Sent(RESULT, late=timedelta(seconds=1.9)), go.grant)
    assert seconds(admission.admit(ask_of(5))) == pytest.approx(CHAT_WINDOW_SECONDS - 0.1)


def test_a_long_delay_of_one_call_uses_little_of_its_bots_window(opener: Opener, clock: HandClock) -> None:
    """It is the server that holds an answer for so long, as a rule."""
    admission = opener(policy_of(settings_of(bot_per_second=1)))
    admission.vouch_idle("default")
    ask = ask_of(5)
    go = admission.admit(ask)
    assert isinstance(go, Go)
    clock.advance(1.2)
    admission.settle(ask, Sent(RESULT, late=timedelta(seconds=1.2)), go.grant)
    assert seconds(admission.admit(ask_of(6))) == pytest.approx(0.5 + BOT_WINDOW_SECONDS - 1.2)


@pytest.mark.parametrize(
    "settlement",
    [Sent(RESULT), Sent(True, late=timedelta(seconds=0.1)), Dead("content"), Retrying(timedelta())],
    ids=lambda settlement: type(settlement).__name__,
)
def test_an_upload_counts_for_its_chat_from_its_end(
    admission: Admission, clock: HandClock, settlement: Settlement
) -> None:
    file = upload(5)
    go = admission.admit(file)
    assert isinstance(go, Go)
    clock.advance(2)
    admission.settle(file, settlement, go.grant)
    text = file if isinstance(settlement, Retrying) else ask_of(5)
    assert seconds(admission.admit(text)) == pytest.approx(CHAT_WINDOW_SECONDS)


@pytest.mark.parametrize("settlement", [Released(), Retrying(timedelta(), charged=False)])
def test_an_upload_that_was_not_made_is_not_charged(
    admission: Admission, clock: HandClock, settlement: Settlement
) -> None:
    file = upload(5)
    go = admission.admit(file)
    assert isinstance(go, Go)
    clock.advance(0.9)
    admission.settle(file, settlement, go.grant)
    assert isinstance(admission.admit(file), Go)


def test_uploads_of_a_group_leave_its_window_in_the_order_in_which_they_ended(
    admission: Admission, clock: HandClock
) -> None:
    start = clock.now_us
    for _ in range(20):
        file = upload(GROUP)
        while isinstance(go := admission.admit(file), Wait):
            clock.advance(go.delay)
        clock.advance(1.5)
        assert isinstance(go, Go)
        admission.settle(file, Sent(RESULT), go.grant)
    passed = (clock.now_us - start) / 1e6
    assert seconds(admission.admit(ask_of(GROUP))) == pytest.approx(60.25 + 1.5 - passed)


def test_an_upload_is_charged_to_its_bots_window_once(admission: Admission, clock: HandClock) -> None:
    """Counted at its end as well, uploads of half a second would cost a bot a third of its rate."""
    asks = [upload(chat) for chat in range(1, 151)]
    times = [at for at, _ in run(admission, clock, asks, call_seconds=0.5)]
    assert 90 / (times[140] - times[50]) >= 0.97 * 30


def test_a_settled_send_is_not_moved_again(admission: Admission, clock: HandClock) -> None:
    ask = ask_of(5)
    go = sent(admission, ask)
    clock.advance(0.5)
    admission.settle(ask, Sent(RESULT, late=timedelta(seconds=0.4)), go.grant)
    assert seconds(admission.admit(ask_of(5))) < 0.6


def test_with_limits_off_only_order_and_the_ledger_apply(opener: Opener) -> None:
    admission = opener(policy_of(settings_of(enabled=False)))
    for chat in range(1, 100):
        sent(admission, ask_of(chat))
    first, second = ask_of(5), ask_of(5)
    go = admission.admit(first)
    assert isinstance(go, Go)
    assert isinstance(admission.admit(second), Wait)
    admission.settle(first, Sent(True), go.grant)
    sent(admission, second)


def test_limits_can_be_set_per_bot_and_per_chat(opener: Opener) -> None:
    rules = policy_of(
        settings_of(
            bots={"slow": {"bot_per_second": 1}},
            chats={"default": {str(GROUP): {"group_per_minute": 2, "chat_per_second": 100}}},
        )
    )
    admission = opener(rules)
    for bot in ("slow", "default"):
        admission.vouch_idle(bot)
    sent(admission, ask_of(5, bot="slow"))
    assert seconds(admission.admit(ask_of(6, bot="slow"))) > 0.9
    for _ in range(2):
        sent(admission, ask_of(GROUP))
    assert seconds(admission.admit(ask_of(GROUP))) > 59


def test_a_new_store_starts_cautiously(opener: Opener, clock: HandClock) -> None:
    admission = opener(policy_of(settings_of()))
    times = [at for at, _ in run(admission, clock, [ask_of(chat) for chat in range(1, 61)])]
    assert most_in_window(times, 1.0) <= 30
    assert times[0] >= 1.0, "a chat may have got a message just before the store was lost"


def test_after_a_wipe_a_group_does_not_get_a_second_minutes_budget(opener: Opener, clock: HandClock) -> None:
    admission = opener(policy_of(settings_of()))
    times = [at for at, _ in run(admission, clock, [ask_of(GROUP) for _ in range(12)])]
    assert most_in_window(times, 10.0) <= 4


# Order.


def test_jobs_of_a_line_are_sent_in_order_of_first_arrival(admission: Admission, clock: HandClock) -> None:
    asks = [ask_of(5, method="sendMessage" if n % 3 else "deleteMessage") for n in range(12)]
    assert [ask for _, ask in run(admission, clock, asks)] == asks


def test_only_the_head_of_a_line_may_be_sent(admission: Admission, clock: HandClock) -> None:
    first, second = ask_of(5), ask_of(5)
    go = admission.admit(first)
    assert isinstance(go, Go)
    admission.settle(first, Retrying(timedelta(seconds=30)), go.grant)
    clock.advance(10)
    wait = admission.admit(second)
    assert isinstance(wait, Wait)
    assert (wait.scope, wait.why) == (Scope.CHAT, "line")
    assert 20 < seconds(wait) < 22
    clock.advance(20)
    sent(admission, first)
    clock.advance(1.1)
    sent(admission, second)


def test_a_dead_job_leaves_its_line(admission: Admission) -> None:
    first, second = ask_of(5), ask_of(5)
    admission.admit(first)
    admission.settle(first, Dead("chat not found"))
    decision = admission.admit(second)
    assert isinstance(decision, Wait)
    assert decision.why == "rate"


def test_at_most_one_call_is_in_flight_per_chat(admission: Admission, clock: HandClock) -> None:
    bulk, interactive = ask_of(5), ask_of(5, "interactive")
    go = admission.admit(bulk)
    assert isinstance(go, Go)
    clock.advance(5)
    wait = admission.admit(interactive)
    assert isinstance(wait, Wait)
    assert wait.why == "in-flight"
    assert wait.delay <= timedelta(seconds=1)
    admission.settle(bulk, Sent(True), go.grant)
    clock.advance(5)
    assert isinstance(admission.admit(interactive), Go)


def test_after_a_slow_call_a_chat_rests_for_as_long_again(admission: Admission, clock: HandClock) -> None:
    slow = ask_of(5)
    go = admission.admit(slow)
    assert isinstance(go, Go)
    clock.advance(10)
    admission.settle(slow, Sent(True), go.grant)
    assert seconds(admission.admit(ask_of(5))) == pytest.approx(10)


def test_interactive_precedes_bulk_in_a_chat(admission: Admission, clock: HandClock) -> None:
    bulk = [ask_of(5) for _ in range(3)]
    interactive = [ask_of(5, "interactive") for _ in range(3)]
    order = [ask for _, ask in run(admission, clock, [*bulk, *interactive])]
    assert order == [bulk[0], *interactive, *bulk[1:]]


def test_interactive_does_not_block_bulk_in_its_chat_forever(admission: Admission, clock: HandClock) -> None:
    bulk = [ask_of(5) for _ in range(2)]
    interactive = [ask_of(5, "interactive") for _ in range(30)]
    order = [ask for _, ask in run(admission, clock, [*interactive[:1], *bulk, *interactive[1:]])]
    assert order.index(bulk[0]) <= 12
    assert order.index(bulk[1]) <= 22


def test_a_waiting_retry_delays_only_its_own_line(admission: Admission, clock: HandClock) -> None:
    interactive, bulk = ask_of(5, "interactive"), ask_of(5)
    go = admission.admit(interactive)
    assert isinstance(go, Go)
    admission.settle(interactive, Retrying(timedelta(seconds=60)), go.grant)
    clock.advance(2)
    sent(admission, bulk)


def test_a_busy_group_does_not_delay_other_chats(admission: Admission, clock: HandClock) -> None:
    for _ in range(100):
        admission.admit(ask_of(GROUP))
    times = [at for at, _ in run(admission, clock, [ask_of(chat) for chat in range(1, 91)])]
    assert times[-1] < 3.3


def test_a_missing_head_is_skipped_after_a_grace_period_and_keeps_its_place(
    admission: Admission, clock: HandClock
) -> None:
    sent(admission, ask_of(5))
    lost, second, third = ask_of(5), ask_of(5), ask_of(5)
    for ask in (lost, second, third):
        admission.admit(ask)
    clock.advance(600)  # an outage without asks is not the head's fault
    assert isinstance(admission.admit(second), Wait)
    clock.advance(GRACE_SECONDS - 5)
    assert isinstance(admission.admit(second), Wait)
    clock.advance(5)
    sent(admission, second)
    clock.advance(2)
    sent(admission, lost)
    clock.advance(2)
    sent(admission, third)


def test_a_head_that_returns_in_time_is_sent_first(admission: Admission, clock: HandClock) -> None:
    sent(admission, ask_of(5))
    first, second = ask_of(5), ask_of(5)
    for ask in (first, second):
        admission.admit(ask)
    clock.advance(600)
    admission.admit(second)
    clock.advance(GRACE_SECONDS - 1)
    sent(admission, first)
    clock.advance(2)
    sent(admission, second)


# The bot's budget.


def saturate(admission: Admission) -> list[Ask]:
    """Uses up the burst; returns three bulk jobs that wait for the budget."""
    for chat in range(100, 105):
        sent(admission, ask_of(chat))
    waiting = [ask_of(chat) for chat in range(105, 108)]
    for ask in waiting:
        decision = admission.admit(ask)
        assert isinstance(decision, Wait)
        assert decision.scope is Scope.BOT
    return waiting


def test_jobs_waiting_for_the_bots_budget_get_consecutive_slots(admission: Admission, clock: HandClock) -> None:
    sent_first = [ask_of(chat) for chat in range(100, 105)]
    for ask in sent_first:
        sent(admission, ask)
    delays = []
    for chat in range(105, 109):
        clock.now_us += 1
        delays.append(seconds(admission.admit(ask_of(chat))))
    gaps = [later - earlier for earlier, later in itertools.pairwise(delays)]
    assert all(0.030 < gap < 0.036 for gap in gaps), gaps


def test_interactive_precedes_bulk_for_the_bots_budget(admission: Admission, clock: HandClock) -> None:
    bulk = saturate(admission)
    person = ask_of(500, "interactive")
    assert seconds(admission.admit(person)) < 0.040
    clock.advance(0.034)
    assert isinstance(admission.admit(bulk[0]), Wait)
    assert isinstance(admission.admit(person), Go)


def test_bulk_that_has_waited_long_is_treated_as_interactive(opener: Opener, clock: HandClock) -> None:
    admission = opener(policy_of(settings_of(bot_per_second=1)))
    admission.vouch_idle("default")
    bulk = ask_of(5)
    sent(admission, ask_of(6))
    admission.admit(bulk)
    for step in range(20):
        person = ask_of(1000 + step, "interactive")
        admission.admit(person)
        clock.advance(1.02)
        if isinstance(admission.admit(bulk), Go):
            break
        sent(admission, person)
    assert step == policy.AGING_US // policy.SECOND


def test_a_worker_that_died_while_waiting_holds_its_slot_only_briefly(admission: Admission, clock: HandClock) -> None:
    saturate(admission)
    clock.advance(0.034 * 3 + 0.12)
    asks = [ask_of(chat) for chat in range(200, 203)]
    assert [type(admission.admit(ask)) for ask in asks] == [Go, Go, Go]


# The ledger.


def test_admit_is_idempotent_by_job_id(admission: Admission) -> None:
    sent(admission, ask_of(5))
    ask = ask_of(5)
    assert admission.admit(ask) == admission.admit(ask)
    assert admission.snapshot("default").waiting[Priority.BULK] == 1


def test_a_job_that_was_sent_is_not_sent_again(admission: Admission, clock: HandClock) -> None:
    ask = ask_of(5)
    sent(admission, ask)
    clock.advance(100)
    assert admission.admit(ask) == AlreadySent(RESULT)


def test_a_dead_job_is_not_sent(admission: Admission) -> None:
    ask = ask_of(5)
    admission.settle(ask, Dead("expired"))
    assert admission.admit(ask) == AlreadyDead("expired")


def test_a_second_settlement_is_ignored(admission: Admission) -> None:
    ask = ask_of(5)
    sent(admission, ask)
    admission.settle(ask, Dead("no"))
    admission.settle(ask, Released())
    assert admission.admit(ask) == AlreadySent(RESULT)


def test_a_redelivered_job_waits_while_its_first_worker_may_still_be_calling(
    admission: Admission, clock: HandClock
) -> None:
    ask = ask_of(5)
    admission.admit(ask)
    clock.advance(10)
    wait = admission.admit(ask)
    assert isinstance(wait, Wait)
    assert (wait.why, seconds(wait)) == ("lease", LEASE_SECONDS - 10)


def test_an_unsettled_send_is_unknown_when_its_lease_expires(admission: Admission, clock: HandClock) -> None:
    ask, later = ask_of(5), ask_of(5)
    admission.admit(ask)
    clock.advance(LEASE_SECONDS)
    assert admission.admit(ask) == Unsettled(timedelta(seconds=LEASE_SECONDS))
    assert isinstance(admission.admit(later), Wait), "the uncertain job is the head of the line"
    assert isinstance(admission.renew_unsettled(ask), Go)


def test_an_unknown_job_that_is_never_redelivered_is_eventually_skipped(admission: Admission, clock: HandClock) -> None:
    ask, later = ask_of(5), ask_of(5)
    admission.admit(ask)
    clock.advance(LEASE_SECONDS + 5)
    assert isinstance(admission.admit(later), Wait)
    clock.advance(GRACE_SECONDS)
    sent(admission, later)
    clock.advance(5)
    assert isinstance(admission.admit(ask), Unsettled)
    assert isinstance(admission.renew_unsettled(ask), Go)


def test_a_late_release_does_not_undo_another_workers_call(admission: Admission, clock: HandClock) -> None:
    ask = ask_of(5)
    first = admission.admit(ask)
    clock.advance(LEASE_SECONDS + 1)
    second = admission.renew_unsettled(ask)
    assert isinstance(first, Go)
    assert isinstance(second, Go)
    admission.settle(ask, Released(), first.grant)
    assert isinstance(admission.admit(ask), Wait)
    admission.settle(ask, Sent(RESULT), second.grant)
    assert admission.admit(ask) == AlreadySent(RESULT)


def test_the_ledger_reports_a_jobs_standing(admission: Admission) -> None:
    ask, other = ask_of(5), ask_of(5)
    assert admission.lookup("default", ask.job_id) is None
    admission.admit(ask)
    admission.admit(other)
    found = [admission.lookup("default", one.job_id) for one in (ask, other)]
    assert [one and one.standing for one in found] == [Standing.SENDING, Standing.WAITING]
    admission.settle(ask, Sent(RESULT))
    admission.settle(other, Dead("blocked"))
    one, two = (admission.lookup("default", each.job_id) for each in (ask, other))
    assert one is not None
    assert two is not None
    assert (one.standing, one.result) == (Standing.SENT, RESULT)
    assert (two.standing, two.reason) == (Standing.DEAD, "blocked")


def test_bots_do_not_share_jobs_or_budgets(admission: Admission) -> None:
    admission.vouch_idle("other")
    for chat in range(1, 6):
        sent(admission, ask_of(chat, job_id=f"same-{chat}"))
    sent(admission, ask_of(1, bot="other", job_id="same-1"))


# Pauses.


def test_a_paused_chat_does_not_delay_other_chats(admission: Admission, clock: HandClock) -> None:
    admission.pause("default", "5", timedelta(seconds=30), "429")
    wait = admission.admit(ask_of(5))
    assert isinstance(wait, Wait)
    assert (wait.scope, wait.why, seconds(wait)) == (Scope.CHAT, "pause", 30)
    sent(admission, ask_of(6))
    clock.advance(30)
    assert isinstance(admission.admit(ask_of(5, "interactive")), Go)


def test_a_paused_bot_sends_nothing_and_resumes_evenly(admission: Admission, clock: HandClock) -> None:
    admission.pause("default", None, timedelta(seconds=5), "429")
    waiting = [ask_of(chat) for chat in range(1, 61)]
    wait = admission.admit(waiting[0])
    assert isinstance(wait, Wait)
    assert (wait.scope, wait.why, seconds(wait)) == (Scope.BOT, "pause", 5)
    times = [at for at, _ in run(admission, clock, waiting)]
    assert times[0] == pytest.approx(5)
    assert most_in_window(times, 0.1) <= 4


def test_a_pause_is_never_shortened_but_can_be_cleared(admission: Admission) -> None:
    for chat in ("5", None):
        admission.pause("default", chat, timedelta(seconds=20), "429")
        admission.pause("default", chat, timedelta(seconds=1), "429")
    assert {pause.remaining for pause in admission.snapshot("default").pauses} == {timedelta(seconds=20)}
    assert admission.resume("default", None)
    ask = ask_of(5)
    assert seconds(admission.admit(ask)) == 20
    assert admission.resume("default", "5")
    assert isinstance(admission.admit(ask), Go)


def test_only_a_paused_bot_or_chat_can_be_resumed(admission: Admission, clock: HandClock) -> None:
    for chat in ("5", None):
        assert not admission.resume("default", chat)
        admission.pause("default", chat, timedelta(seconds=20), "test")
        assert admission.resume("default", chat)
        assert not admission.resume("default", chat)
        admission.pause("default", chat, timedelta(seconds=20), "test")
        clock.advance(20)
        assert not admission.resume("default", chat)


@pytest.mark.parametrize("paused", ["5", None], ids=["chat", "bot"])
def test_a_job_in_a_long_pause_asks_again_within_a_minute(
    admission: Admission, clock: HandClock, paused: str | None
) -> None:
    admission.pause("default", paused, LONG_PAUSE, "operator")
    first, second = ask_of(5), ask_of(5)
    for _ in range(3):
        assert seconds(admission.admit(first)) == PAUSE_POLL_SECONDS <= 60
        assert seconds(admission.admit(second)) <= PAUSE_POLL_SECONDS + CHAT_WINDOW_SECONDS
        clock.advance(PAUSE_POLL_SECONDS)


def test_a_job_far_back_in_the_line_of_a_paused_chat_asks_rarely(admission: Admission) -> None:
    """Else each of a line of thousands would ask twice a minute."""
    admission.pause("default", str(GROUP), LONG_PAUSE, "operator")
    waits = [seconds(admission.admit(ask_of(GROUP))) for _ in range(61)]
    assert waits[0] == PAUSE_POLL_SECONDS
    assert waits[20] - waits[0] == pytest.approx(60, abs=1)
    assert waits[60] - waits[0] == pytest.approx(180, abs=1)


@pytest.mark.parametrize("paused", ["5", None], ids=["chat", "bot"])
def test_a_resume_reaches_the_jobs_of_a_chat_within_a_minute_and_in_order(
    admission: Admission, clock: HandClock, paused: str | None
) -> None:
    admission.pause("default", paused, LONG_PAUSE, "operator")
    asks = [ask_of(5) for _ in range(10)]
    due = {ask.job_id: 0 for ask in asks}
    resumed_at = clock.now_us + 500 * policy.SECOND
    while (ask := min(asks, key=lambda one: due[one.job_id])) and due[ask.job_id] < resumed_at:
        clock.now_us = max(clock.now_us, due[ask.job_id])
        due[ask.job_id] = clock.now_us + micros(admission.admit(ask))
    clock.now_us = resumed_at
    assert admission.resume("default", paused)
    sent_at = []
    while asks:
        ask = min(asks, key=lambda one: due[one.job_id])
        clock.now_us = max(clock.now_us, due[ask.job_id])
        decision = admission.admit(ask)
        if isinstance(decision, Wait):
            due[ask.job_id] = clock.now_us + micros(decision)
            continue
        assert ask is asks.pop(0), "in order"
        assert isinstance(decision, Go)
        admission.settle(ask, Sent(RESULT), decision.grant)
        sent_at.append((clock.now_us - resumed_at) / policy.SECOND)
    assert sent_at[0] <= PAUSE_POLL_SECONDS
    assert sent_at[-1] <= PAUSE_POLL_SECONDS + 9 * 1.2


def test_jobs_parked_for_a_bots_long_pause_do_not_delay_others_after_a_resume(
    admission: Admission, clock: HandClock
) -> None:
    """A job that waits for its bot has its slot kept until it is due."""
    admission.pause("default", None, LONG_PAUSE, "operator")
    for chat in range(1, 11):
        assert isinstance(admission.admit(ask_of(chat)), Wait)
    clock.advance(20)
    assert admission.resume("default", None)
    other = ask_of(100)
    waited = 0.0
    while isinstance(decision := admission.admit(other), Wait):
        waited += seconds(decision)
        clock.advance(decision.delay)
    assert waited <= PAUSE_POLL_SECONDS


def test_a_429_pauses_only_its_chat(admission: Admission) -> None:
    assert admission.too_many_requests("default", "5", timedelta(seconds=30)) is Scope.CHAT
    assert 30 < seconds(admission.admit(ask_of(5))) < 30.5
    sent(admission, ask_of(6))


def test_simultaneous_429s_in_several_chats_pause_the_bot(admission: Admission, clock: HandClock) -> None:
    scopes = []
    for chat in ("5", "6", "7"):
        scopes.append(admission.too_many_requests("default", chat, timedelta(seconds=5)))
        clock.advance(0.05)
    assert scopes == [Scope.CHAT, Scope.CHAT, Scope.BOT]
    wait = admission.admit(ask_of(8))
    assert isinstance(wait, Wait)
    assert (wait.scope, wait.why) == (Scope.BOT, "pause")


def test_429s_far_apart_pause_only_their_chats(admission: Admission, clock: HandClock) -> None:
    for chat in range(5, 15):
        assert admission.too_many_requests("default", str(chat), timedelta(seconds=5)) is Scope.CHAT
        clock.advance(3)


def test_a_wait_longer_than_any_chat_window_counts_double(admission: Admission, clock: HandClock) -> None:
    assert admission.too_many_requests("default", "5", timedelta(seconds=300)) is Scope.CHAT
    clock.advance(20)
    assert admission.too_many_requests("default", "6", timedelta(seconds=300)) is Scope.BOT


def test_a_429_for_the_bot_lowers_its_rate_temporarily(admission: Admission, clock: HandClock) -> None:
    full = admission.snapshot("default").per_second_limit
    for chat in ("5", "6", "7", "8", "9"):
        admission.too_many_requests("default", chat, timedelta(seconds=5))
    assert admission.snapshot("default").per_second_limit < 0.95 * full
    clock.advance(6)
    times = [at for at, _ in run(admission, clock, [ask_of(chat) for chat in range(100, 160)])]
    assert 40 / (times[50] - times[10]) < 0.95 * full
    clock.advance(120)
    assert admission.snapshot("default").per_second_limit == full


def test_the_rate_never_falls_below_half(admission: Admission, clock: HandClock) -> None:
    full = admission.snapshot("default").per_second_limit
    for _ in range(40):
        for chat in ("5", "6", "7"):
            admission.too_many_requests("default", chat, timedelta(seconds=1))
        clock.advance(1.2)
    assert 0.49 * full < admission.snapshot("default").per_second_limit < 0.55 * full


# Chats that change their name.


def test_a_migrated_chat_keeps_its_line_budget_and_pause(admission: Admission, clock: HandClock) -> None:
    old, new = -5, GROUP
    head = ask_of(old)
    go = admission.admit(head)
    assert isinstance(go, Go)
    line = [ask_of(old) for _ in range(3)]
    for ask in line:
        clock.now_us += 1
        admission.admit(ask)
    admission.migrate("default", str(old), str(new))
    admission.settle(head, Retrying(timedelta(0)), go.grant)
    clock.now_us += 1
    late = ask_of(new)
    admission.admit(late)
    order = run(admission, clock, [*line, late, head])
    assert [ask for _, ask in order] == [head, *line, late]
    assert order[0][0] >= 1, "the budget has moved"
    assert admission.admit(ask_of(old, "interactive")).delay > timedelta(0)  # type: ignore[union-attr]


def test_jobs_for_the_old_id_are_sent_to_the_new_one(admission: Admission) -> None:
    admission.migrate("default", "-5", str(GROUP))
    go = admission.admit(ask_of(-5))
    assert isinstance(go, Go)
    assert go.chat == str(GROUP)


def test_a_chat_that_migrates_twice_is_still_resolved(admission: Admission) -> None:
    admission.migrate("default", "-6", "-5")
    admission.migrate("default", "@name", "-5")
    admission.migrate("default", "-5", str(GROUP))
    assert sent(admission, ask_of(-6)).chat == str(GROUP)
    assert seconds(admission.admit(ask_of("@name"))) > 0.9, "the name shares its budget"


def test_a_name_is_sent_to_telegram_as_a_name(admission: Admission) -> None:
    admission.migrate("default", "@name", str(GROUP))
    assert sent(admission, ask_of("@name")).chat == "@name"
    assert sent(admission, ask_of("@name", method="getChat")).chat == "@name"


def test_jobs_for_a_name_and_for_its_id_share_one_line(admission: Admission, clock: HandClock) -> None:
    admission.migrate("default", "@name", str(GROUP))
    asks = [ask_of(chat) for chat in ("@name", GROUP, "@name", GROUP)]
    assert [ask for _, ask in run(admission, clock, asks)] == asks


def test_a_name_that_moves_to_another_chat_does_not_affect_the_old_one(admission: Admission, clock: HandClock) -> None:
    admission.migrate("default", "@name", "-5")
    sent(admission, ask_of(-5))
    admission.migrate("default", "@name", str(GROUP))
    assert seconds(admission.admit(ask_of(-5))) > 0.9
    assert sent(admission, ask_of("@name")).chat == "@name"
    assert seconds(admission.admit(ask_of(GROUP))) > 0.9
    clock.advance(2)
    assert sent(admission, ask_of(-5, "interactive")).chat == "-5"


def test_a_waiting_job_keeps_its_place_when_its_name_moves_to_another_chat(
    admission: Admission, clock: HandClock
) -> None:
    admission.migrate("default", "@name", "-5")
    first, second = ask_of("@name"), ask_of("@name")
    go = admission.admit(first)
    assert isinstance(go, Go)
    assert isinstance(admission.admit(second), Wait)
    admission.migrate("default", "@name", str(GROUP))
    admission.settle(first, Retrying(timedelta(0)), go.grant)
    assert [ask for _, ask in run(admission, clock, [second, first])] == [first, second]
    assert admission.snapshot("default").waiting[Priority.BULK] == 0


def test_an_unconfirmed_name_becomes_a_separate_chat_again(admission: Admission, clock: HandClock) -> None:
    admission.migrate("default", "@name", str(GROUP))
    clock.advance(policy.NAME_US / policy.SECOND)
    sent(admission, ask_of(GROUP))
    sent(admission, ask_of("@name"))


def test_a_name_that_is_confirmed_from_time_to_time_keeps_its_chat(admission: Admission, clock: HandClock) -> None:
    for _ in range(4):
        admission.migrate("default", "@name", str(GROUP))
        clock.advance(0.7 * policy.NAME_US / policy.SECOND)
    sent(admission, ask_of(GROUP))
    assert isinstance(admission.admit(ask_of("@name")), Wait)


def test_a_name_keeps_its_chat_while_jobs_wait_there(admission: Admission, clock: HandClock) -> None:
    admission.migrate("default", "@name", str(GROUP))
    admission.pause("default", str(GROUP), timedelta(hours=5), "operator")
    first = ask_of("@name")
    assert isinstance(admission.admit(first), Wait)
    clock.advance(timedelta(hours=4))
    second = ask_of("@name")
    assert isinstance(admission.admit(first), Wait), "as it asks about every half minute"
    assert isinstance(admission.admit(second), Wait)
    admission.resume("default", str(GROUP))
    assert [ask for _, ask in run(admission, clock, [second, first])] == [first, second]


def test_limits_set_for_a_name_apply_to_its_chat(opener: Opener, clock: HandClock) -> None:
    admission = opener(policy_of(settings_of(chats={"default": {"@Name": {"group_per_minute": 2}}})))
    admission.vouch_idle("default")
    for chat in ("@name", GROUP, GROUP):
        sent(admission, ask_of(chat))
        clock.advance(1.1)
    admission.migrate("default", "@name", str(GROUP))
    asks = [ask_of(chat) for chat in ("@name", GROUP, "@name")]
    times = [at for at, _ in run(admission, clock, asks)]
    assert times[0] > 50
    assert times[2] > times[0] + 55


def test_limits_set_for_an_id_override_those_of_its_name(opener: Opener, clock: HandClock) -> None:
    own = {"@name": {"group_per_minute": 1}, str(GROUP): {"group_per_minute": 3}}
    admission = opener(policy_of(settings_of(chats={"default": own})))
    admission.vouch_idle("default")
    admission.migrate("default", "@name", str(GROUP))
    assert [round(at) for at, _ in run(admission, clock, [ask_of("@name") for _ in range(4)])] == [0, 1, 2, 60]


def test_a_resolved_name_shares_the_budget_of_its_id(admission: Admission, clock: HandClock) -> None:
    for _ in range(10):
        sent(admission, ask_of("@channel"))
        clock.advance(1.1)
    admission.migrate("default", "@channel", str(GROUP))
    for _ in range(10):
        sent(admission, ask_of(GROUP))
        clock.advance(1.1)
    assert seconds(admission.admit(ask_of("@channel"))) > 30


# The clock.


def test_a_clock_set_back_neither_stops_sending_nor_breaks_a_limit(admission: Admission, clock: HandClock) -> None:
    first = run(admission, clock, [ask_of(chat) for chat in range(1, 41)])
    clock.advance(timedelta(hours=-1))
    burst = [type(admission.admit(ask_of(chat))) for chat in range(41, 60)]
    assert burst.count(Go) <= 5
    clock.advance(2)
    assert len(first) == 40
    assert isinstance(admission.admit(ask_of(1, "interactive")), Go)


def test_a_pause_survives_a_clock_set_back(admission: Admission, clock: HandClock) -> None:
    sent(admission, ask_of(5))
    admission.pause("default", None, timedelta(seconds=30), "429")
    clock.advance(timedelta(hours=-1))
    ask = ask_of(6)
    assert seconds(admission.admit(ask)) == 30
    clock.advance(30)
    assert isinstance(admission.admit(ask), Go)


# Many jobs at once, and the status.


def test_two_handles_on_one_store_share_one_budget(opener: Opener, request: pytest.FixtureRequest) -> None:
    if "model" in request.node.name:
        return  # the model is limited to one process
    one, two = opener(policy_of(settings_of())), opener(policy_of(settings_of()))
    one.vouch_idle("default")
    decisions = [(one, two)[chat % 2].admit(ask_of(chat)) for chat in range(1, 11)]
    assert sum(isinstance(decision, Go) for decision in decisions) == 5


def test_closing_twice_or_unused_does_nothing(opener: Opener) -> None:
    store = opener(policy_of(settings_of()))
    store.close()
    store.vouch_idle("default")
    store.close()
    store.close()


def test_a_new_bot_has_sent_nothing_though_it_starts_cautiously(opener: Opener, clock: HandClock) -> None:
    store = opener(policy_of(settings_of()))
    assert store.snapshot("default").sent_last_second == 0
    clock.advance(1.5)
    assert isinstance(store.admit(ask_of(5)), Go)
    assert store.snapshot("default").sent_last_second == 1


@pytest.mark.parametrize("settlement", [Released(), Retrying(timedelta(), charged=False)], ids=["released", "retrying"])
def test_a_call_that_was_not_made_is_not_counted_as_sent(admission: Admission, settlement: Settlement) -> None:
    assert isinstance(admission.admit(ask_of(5)), Go)
    ask = ask_of(6)
    go = admission.admit(ask)
    assert isinstance(go, Go)
    admission.settle(ask, settlement, go.grant)
    seen = admission.snapshot("default")
    assert seen.sent_last_second == seen.sent_last_minute == 1


def test_the_snapshot_counts_waiting_jobs_and_shows_pauses_and_long_lines(admission: Admission) -> None:
    go = admission.admit(ask_of(5))
    assert isinstance(go, Go)
    for _ in range(3):
        admission.admit(ask_of(5, "interactive"))
    for _ in range(7):
        admission.admit(ask_of(GROUP))
    admission.pause("default", "9", timedelta(seconds=9), "slow")
    admission.settle(ask_of(6), Dead("blocked"))
    seen = admission.snapshot("default")
    assert seen.sent_last_second == seen.sent_last_minute == 2
    assert seen.sending == 2
    assert seen.waiting == admission.waiting("default") == {Priority.INTERACTIVE: 3, Priority.BULK: 6}
    assert [(line.chat, line.length) for line in seen.longest_lines] == [(str(GROUP), 6), ("5", 3)]
    assert [(pause.chat, pause.remaining) for pause in seen.pauses] == [("9", timedelta(seconds=9))]
    assert seen.dead == 1
    assert 0.97 * 30 < seen.per_second_limit <= 30


def test_the_policy_decides_whether_refusals_blame_the_bot() -> None:
    refusals = [policy.FloodWait(chat, 0, False) for chat in "abc"]
    assert policy.blames_bot(refusals)
    assert not policy.blames_bot(policy.recent(refusals, policy.MOMENT_US))
