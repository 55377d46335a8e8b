"""The fake's record of a run and its summary; faults and their probabilities."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from floodgate.fake_telegram.arrivals import Arrival, Arrivals
from floodgate.fake_telegram.calls import Call, CallSource
from floodgate.fake_telegram.control_values import ControlError, chat_state_from, fault_from, limits_from
from floodgate.fake_telegram.errors import ApiError
from floodgate.fake_telegram.limits import FloodLimits, Rate
from floodgate.fake_telegram.scenarios import ChatState, ChatTrouble, Fault, FaultKind, Scenarios
from floodgate.fake_telegram.summary import fullest, summarise
from floodgate.fake_telegram.updates import FIRST_UPDATE_ID, RETENTION_SECONDS, Inbox, InboxUpdate
from floodgate.fake_telegram.webhooks import PostBackoff

SENT = Arrival(
    seq=1,
    bot_id=1,
    method="sendMessage",
    chat_id=5,
    source=CallSource("form", b"text=hi"),
    at=0.0,
    wall=0.0,
    charged_chat=True,
    verdict="ok",
    acted=True,
    code=200,
)
CALL = Call(1, "sendmessage")


def test_a_window_holds_arrivals_less_than_its_length_apart() -> None:
    assert fullest([("a", 0.0, 1), ("a", 0.5, 1), ("a", 1.0, 1)], 1.0) == 2


def test_a_summary_counts_effective_calls_by_cost_and_by_chat() -> None:
    records = [
        SENT,
        replace(SENT, seq=2, at=0.9, chat_id=6, cost=3),
        replace(SENT, seq=3, at=0.95, chat_id=6, acted=False, verdict="chat", code=429),
        replace(SENT, seq=4, at=30.0, chat_id=-7),
        replace(SENT, seq=5, at=89.0, chat_id=-7, source=CallSource("form", b"text=other")),
    ]
    total = summarise(records)
    assert (total.bot_in_1s, total.chat_in_1s, total.group_in_60s) == (4, 3, 2)
    assert (total.by_code, total.refused_by) == ({200: 4, 429: 1}, {"chat": 1})


def test_a_summary_counts_typing_apart() -> None:
    typing = replace(SENT, method="sendChatAction", charged_chat=False, typing=True)
    records = [replace(typing, seq=n, at=at) for n, at in enumerate((0.0, 4.0, 6.0, 29.0))]
    total = summarise([*records, replace(typing, chat_id=6, at=29.0)])
    assert (total.typing_in_5s, total.typing_in_30s) == (2, 4)
    assert (total.bot_in_1s, total.chat_in_1s, total.duplicated) == (0, 0, 0)


def test_a_summary_names_messages_sent_twice() -> None:
    total = summarise([SENT, replace(SENT, seq=2, at=5.0), replace(SENT, seq=3, at=9.0, chat_id=6)])
    assert [(d.chat_id, d.text, d.times) for d in total.duplicates] == [(5, "hi", 2)]


def test_the_record_is_bounded_and_paged_by_number() -> None:
    arrivals = Arrivals(capacity=100)
    for n in range(250):
        arrivals.close(arrivals.open(1, "getMe", None, CallSource("form", b""), float(n), 0.0), 200)
    kept = arrivals.snapshot()
    assert len(kept) <= 100
    assert [a.seq for a in arrivals.page(after=248, limit=10)] == [249, 250]
    assert arrivals.page(after=0, limit=2)[0].seq == kept[0].seq
    assert arrivals.stats(0.0).by_code == {200: 250}


def test_calls_in_flight_are_counted_per_chat() -> None:
    arrivals = Arrivals()
    first = arrivals.open(1, "sendMessage", 5, CallSource("form", b""), 0.0, 0.0)
    second = arrivals.open(1, "sendMessage", 5, CallSource("form", b""), 0.0, 0.0)
    arrivals.close(first, 200)
    third = arrivals.open(1, "sendMessage", 5, CallSource("form", b""), 0.0, 0.0)
    assert (first.in_flight, second.in_flight, third.in_flight) == (1, 2, 2)


def test_a_fault_occurs_the_configured_number_of_times() -> None:
    scenarios = Scenarios(faults=[Fault(FaultKind.CUT_BEFORE, times=2)])
    struck = [scenarios.strike(CALL, 5) is not None for _ in range(4)]
    assert struck == [True, True, False, False]


def test_a_fault_affects_only_the_methods_and_chats_it_names() -> None:
    fault = Fault(FaultKind.STALL, methods=frozenset({"sendmessage"}), chats=frozenset({5}))
    scenarios = Scenarios(faults=[fault])
    assert scenarios.strike(CALL, 5) is fault
    assert scenarios.strike(CALL, 6) is None
    assert scenarios.strike(Call(1, "getme"), 5) is None


def test_the_same_seed_gives_the_same_random_faults() -> None:
    def chances(seed: int) -> list[bool]:
        scenarios = Scenarios(seed, faults=[Fault(FaultKind.ERROR, probability=0.5)])
        return [scenarios.strike(CALL, 5) is not None for _ in range(50)]

    assert chances(1) == chances(1)
    assert chances(1) != chances(2)
    assert 10 < sum(chances(1)) < 40


def test_latency_stays_in_its_range() -> None:
    scenarios = Scenarios(latency_ms=(80, 120))
    assert all(0.08 <= scenarios.latency_seconds() <= 0.12 for _ in range(100))


def test_a_chat_fault_ends_after_its_number_of_calls() -> None:
    scenarios = Scenarios()
    scenarios.set_chat(5, ChatState(ChatTrouble.BLOCKED, times=1))
    with pytest.raises(ApiError, match="403"):
        scenarios.refuse(5, writes=True)
    scenarios.refuse(5, writes=True)


def test_a_blocked_user_can_still_be_queried_but_a_missing_chat_cannot() -> None:
    scenarios = Scenarios()
    scenarios.set_chat(5, ChatState(ChatTrouble.BLOCKED))
    scenarios.refuse(5, writes=False)
    scenarios.set_chat(5, ChatState(ChatTrouble.NOT_FOUND))
    with pytest.raises(ApiError, match="400"):
        scenarios.refuse(5, writes=False)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: limits_from(FloodLimits(), {"bots": 3}), "Unknown limit 'bots'"),
        (lambda: limits_from(FloodLimits(), {"bot": 3}), "A rate is"),
        (lambda: limits_from(FloodLimits(), {"bot": [0, 1]}), "at least 1"),
        (lambda: chat_state_from({"trouble": "gone"}), "is unknown; use one of: blocked"),
        (lambda: chat_state_from({"trouble": "migrated"}), "migrate_to"),
        (lambda: fault_from({"kind": "error", "probability": 2}), "between 0 and 1"),
    ],
)
def test_invalid_control_values_are_reported_in_one_sentence(make: object, sentence: str) -> None:
    assert callable(make)
    with pytest.raises(ControlError, match=sentence):
        make()


def test_limits_can_be_changed_individually() -> None:
    assert limits_from(FloodLimits(), {"bot": [10, 2], "chat": None}) == FloodLimits(bot=Rate(10, 2.0), chat=None)


def test_updates_are_kept_for_one_day() -> None:
    now = 0.0
    inbox = Inbox(lambda: now)
    inbox.add("message", {}, 1)
    now = RETENTION_SECONDS - 1
    inbox.add("message", {}, 1)
    now = RETENTION_SECONDS
    assert [u.update_id for u in asyncio.run(poll(inbox))] == [FIRST_UPDATE_ID + 1]


def test_an_offset_confirms_earlier_updates() -> None:
    inbox = Inbox(lambda: 0.0)
    for _ in range(5):
        inbox.add("message", {}, 1)
    given = asyncio.run(poll(inbox, offset=FIRST_UPDATE_ID + 3))
    assert [u.update_id - FIRST_UPDATE_ID for u in given] == [3, 4]
    assert len(inbox.pending) == 2


def test_a_negative_offset_counts_from_the_end() -> None:
    inbox = Inbox(lambda: 0.0)
    for _ in range(5):
        inbox.add("message", {}, 1)
    given = asyncio.run(poll(inbox, offset=-1))
    assert [u.update_id - FIRST_UPDATE_ID for u in given] == [4]


def test_updates_not_in_allowed_updates_are_not_delivered() -> None:
    inbox = Inbox(lambda: 0.0)
    assert inbox.add("message_reaction", {}, 1) is None
    inbox.allowed = frozenset({"message_reaction"})
    assert inbox.add("message_reaction", {}, 1) is not None
    assert inbox.add("message", {}, 1) is None


def test_a_failed_webhook_is_retried_at_once_and_then_at_pauses_up_to_a_minute() -> None:
    assert [PostBackoff().after(n) for n in range(1, 9)] == [0, 2, 4, 8, 16, 32, 60, 60]


async def poll(inbox: Inbox, offset: int = 0) -> list[InboxUpdate]:
    return list(await inbox.poll(offset, 100, 0))
