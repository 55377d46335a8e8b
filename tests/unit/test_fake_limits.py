"""The fake's flood limits, on a clock moved by hand."""

from __future__ import annotations

from floodgate.fake_telegram.limits import (
    JUDGEMENTS_PER_SWEEP,
    CallCost,
    FloodControl,
    FloodLimits,
    Rate,
    SlidingWindow,
)

BOT = 1
USER = 42
GROUP = -1000000000005
SEND = CallCost(chat=True)
EDIT = CallCost(chat=True, edit=True)
TYPING = CallCost(typing=True)


def passes(flood: FloodControl, chat: int, at: float, charge: CallCost = SEND) -> bool:
    return flood.judge(BOT, chat, charge, at).passes


def test_a_chat_accepts_one_message_in_any_second() -> None:
    flood = FloodControl(FloodLimits())
    assert passes(flood, USER, 0.0)
    verdict = flood.judge(BOT, USER, SEND, 0.999)
    assert (verdict.by, verdict.retry_after) == ("chat", 1)


def test_a_chat_accepts_the_next_message_after_a_second() -> None:
    flood = FloodControl(FloodLimits())
    assert passes(flood, USER, 0.0)
    assert passes(flood, USER, 1.0)


def test_a_chat_at_its_limit_does_not_affect_other_chats() -> None:
    flood = FloodControl(FloodLimits())
    assert passes(flood, USER, 0.0)
    assert not passes(flood, USER, 0.1)
    assert passes(flood, USER + 1, 0.1)


def test_a_bot_sends_at_most_thirty_in_any_second() -> None:
    flood = FloodControl(FloodLimits())
    assert all(passes(flood, USER + n, n / 100) for n in range(30))
    verdict = flood.judge(BOT, 999, SEND, 0.9)
    assert (verdict.by, verdict.retry_after) == ("bot", 1)


def test_the_window_slides_instead_of_restarting_each_second() -> None:
    flood = FloodControl(FloodLimits())
    assert all(passes(flood, USER + n, 0.9) for n in range(30))
    assert not passes(flood, 999, 1.1)


def test_a_group_accepts_twenty_in_any_minute_and_states_when_there_is_room() -> None:
    flood = FloodControl(FloodLimits())
    assert all(passes(flood, GROUP, float(n)) for n in range(20))
    verdict = flood.judge(BOT, GROUP, SEND, 20.0)
    assert (verdict.by, verdict.retry_after) == ("group", 40)


def test_a_user_has_no_group_limit() -> None:
    flood = FloodControl(FloodLimits())
    assert all(passes(flood, USER, float(n)) for n in range(40))


def test_paid_broadcast_has_its_own_budget() -> None:
    flood = FloodControl(FloodLimits())
    paid = CallCost(chat=True, paid=True)
    assert all(passes(flood, n, 0.0, paid) for n in range(1, 1001))
    assert flood.judge(BOT, 5000, paid, 0.5).by == "paid"


def test_an_action_is_charged_to_the_bot_and_not_to_the_chat() -> None:
    flood = FloodControl(FloodLimits())
    assert all(passes(flood, GROUP, 0.0, CallCost()) for _ in range(30))
    assert flood.judge(BOT, GROUP, CallCost(), 0.0).by == "bot"


def test_a_chat_accepts_twenty_typing_calls_in_five_seconds_and_forty_in_thirty() -> None:
    flood = FloodControl(FloodLimits())
    assert all(passes(flood, USER, n / 10, TYPING) for n in range(20))
    verdict = flood.judge(BOT, USER, TYPING, 2.5)
    assert (verdict.by, verdict.retry_after) == ("typing", 3)
    assert all(passes(flood, USER, 10 + n / 10, TYPING) for n in range(20))
    assert flood.judge(BOT, USER, TYPING, 20.0).by == "long_typing"
    assert passes(flood, USER, 30.1, TYPING)


def test_typing_counts_for_no_other_limit_and_its_wait_refuses_nothing_else() -> None:
    flood = FloodControl(FloodLimits())
    for n in range(100):
        assert passes(flood, USER + n, 0.0, TYPING)
    assert all(passes(flood, USER + n, 0.0) for n in range(30))
    for _ in range(20):
        flood.judge(BOT, USER, TYPING, 1.0)
    assert not passes(flood, USER, 1.1, TYPING)
    assert passes(flood, USER, 1.1)
    assert passes(flood, USER + 1, 1.1, TYPING)


def test_a_wait_of_the_bot_refuses_typing_and_one_of_the_chats_messages_does_not() -> None:
    flood = FloodControl(FloodLimits())
    flood.impose(BOT, USER, 10, 0.0)
    assert passes(flood, USER, 0.1, TYPING)
    flood.impose(BOT, None, 10, 0.0)
    assert flood.judge(BOT, USER, TYPING, 0.1).by == "wait"


def test_answers_and_reads_are_free_even_during_a_wait() -> None:
    flood = FloodControl(FloodLimits())
    flood.impose(BOT, None, 100, 0.0)
    assert flood.judge(BOT, USER, None, 1.0).passes


def test_an_album_counts_as_many_messages_as_it_has_items() -> None:
    flood = FloodControl(FloodLimits(chat=None))
    assert passes(flood, GROUP, 0.0, CallCost(cost=10, chat=True))
    assert passes(flood, GROUP, 1.0, CallCost(cost=10, chat=True))
    assert not passes(flood, GROUP, 2.0)


def test_a_call_larger_than_its_window_passes_an_empty_window_and_blocks_the_windows_it_fills() -> None:
    window, rate = SlidingWindow(), Rate(1, 1.0)
    assert window.wait_seconds(rate, 5, 0.0) == 0.0
    window.charge(rate, 5, 0.0)
    assert window.wait_seconds(rate, 1, 0.5) == 4.5
    assert window.wait_seconds(rate, 1, 5.0) == 0.0


def test_a_refused_call_is_not_charged() -> None:
    flood = FloodControl(FloodLimits(group=Rate(1, 60.0)))
    assert passes(flood, GROUP, 0.0)
    assert not passes(flood, GROUP, 0.5)
    assert all(passes(flood, USER + n, 0.5) for n in range(29))


def test_calls_already_in_flight_do_not_lengthen_a_wait() -> None:
    flood = FloodControl(FloodLimits())
    flood.impose(BOT, USER, 10, 0.0)
    assert flood.judge(BOT, USER, SEND, 0.4).retry_after == 10
    assert passes(flood, USER, 10.0)


def test_calls_during_a_wait_lengthen_it() -> None:
    flood = FloodControl(FloodLimits())
    flood.impose(BOT, USER, 10, 0.0)
    assert flood.judge(BOT, USER, SEND, 5.0).retry_after == 6
    assert not passes(flood, USER, 10.0)


def test_a_wait_never_exceeds_its_limit() -> None:
    flood = FloodControl(FloodLimits(longest_wait_seconds=20))
    flood.impose(BOT, USER, 10, 0.0)
    waits = [flood.judge(BOT, USER, SEND, n * 0.5).retry_after for n in range(1, 400)]
    assert max(waits) == 20


def test_lengthening_can_be_switched_off() -> None:
    flood = FloodControl(FloodLimits(growth_seconds=0))
    flood.impose(BOT, USER, 10, 0.0)
    assert flood.judge(BOT, USER, SEND, 5.0).retry_after == 5
    assert passes(flood, USER, 10.0)


def waits_of_a_caller_who_goes_on(flood: FloodControl, rounds: int, *, pause: float = 0.0) -> list[int]:
    """Earns a wait, calls once during it, lets it pass, and so on. Returns the first wait of each round."""
    now, found = 0.0, []
    for _ in range(rounds):
        assert passes(flood, USER, now)
        found.append(flood.judge(BOT, USER, SEND, now + 0.1).retry_after)
        now += 0.7 + flood.judge(BOT, USER, SEND, now + 0.7).retry_after + pause
    return found


def test_each_wait_in_which_the_caller_went_on_doubles_the_next_one() -> None:
    assert waits_of_a_caller_who_goes_on(FloodControl(FloodLimits(growth_seconds=0)), 4) == [1, 2, 4, 8]


def test_doubled_waits_are_bounded() -> None:
    flood = FloodControl(FloodLimits(growth_seconds=0, longest_wait_seconds=5))
    assert waits_of_a_caller_who_goes_on(flood, 5) == [1, 2, 4, 5, 5]


def test_a_caller_who_keeps_to_its_waits_for_a_time_is_forgiven() -> None:
    assert waits_of_a_caller_who_goes_on(FloodControl(FloodLimits(growth_seconds=0)), 3, pause=60) == [1, 1, 1]


def test_a_caller_who_keeps_to_its_waits_is_told_to_wait_no_longer() -> None:
    flood = FloodControl(FloodLimits())
    for second in range(0, 40, 2):
        assert passes(flood, USER, second)
        assert flood.judge(BOT, USER, SEND, second + 0.1).retry_after == 1


def test_longer_waits_of_one_chat_are_those_of_no_other() -> None:
    flood = FloodControl(FloodLimits(growth_seconds=0))
    waits_of_a_caller_who_goes_on(flood, 4)
    assert passes(flood, USER + 1, 50.0)
    assert flood.judge(BOT, USER + 1, SEND, 50.1).retry_after == 1


def test_doubling_can_be_switched_off() -> None:
    assert waits_of_a_caller_who_goes_on(FloodControl(FloodLimits(growth_seconds=0, repeat_factor=1)), 3) == [1, 1, 1]


def test_edits_count_as_messages_of_their_chat() -> None:
    flood = FloodControl(FloodLimits())
    assert passes(flood, USER, 0.0)
    assert flood.judge(BOT, USER, EDIT, 0.5).by == "chat"
    assert all(passes(flood, GROUP, 10.0 + 1.5 * n, EDIT if n % 2 else SEND) for n in range(20))
    assert flood.judge(BOT, GROUP, EDIT, 45.0).by == "group"


def test_a_limit_on_edits_pauses_the_chat_and_leaves_messages_alone_otherwise() -> None:
    flood = FloodControl(FloodLimits(edits=Rate(1, 4.0)))
    assert passes(flood, USER, 0.0, EDIT)
    assert passes(flood, USER, 1.0)
    verdict = flood.judge(BOT, USER, EDIT, 2.0)
    assert (verdict.by, verdict.retry_after) == ("edits", 2)
    assert not passes(flood, USER, 2.1)
    assert passes(flood, USER + 1, 2.1, EDIT)
    assert passes(flood, USER, 4.1, EDIT)


def test_typing_has_a_cool_down_only_if_asked_for() -> None:
    flood = FloodControl(FloodLimits())
    assert all(passes(flood, USER, n * 0.3, TYPING) for n in range(20))
    flood = FloodControl(FloodLimits(cool_down=Rate(5, 3.0)))
    assert all(passes(flood, USER, n * 0.3, TYPING) for n in range(5))
    verdict = flood.judge(BOT, USER, TYPING, 1.5)
    assert (verdict.by, verdict.retry_after) == ("cool_down", 3)
    assert passes(flood, USER, 1.6)
    assert passes(flood, USER, 4.5, TYPING)


def test_typing_now_and_then_needs_no_cool_down() -> None:
    flood = FloodControl(FloodLimits(cool_down=Rate(5, 3.0)))
    assert all(passes(flood, USER, n * 4.0, TYPING) for n in range(20))


def test_a_wait_for_the_bot_applies_to_all_its_chats_and_no_other_bot() -> None:
    flood = FloodControl(FloodLimits())
    flood.impose(BOT, None, 5, 0.0)
    assert not passes(flood, 7, 1.0)
    assert flood.judge(BOT + 1, 7, SEND, 1.0).passes


def test_without_limits_an_imposed_wait_still_applies() -> None:
    flood = FloodControl(FloodLimits(enabled=False))
    assert all(passes(flood, USER, 0.0) for _ in range(100))
    flood.impose(BOT, USER, 3, 0.0)
    assert not passes(flood, USER, 1.0)


def test_a_single_limit_can_be_lifted() -> None:
    flood = FloodControl(FloodLimits(chat=None))
    assert all(passes(flood, USER, 0.0) for _ in range(30))
    assert not passes(flood, USER, 0.0)


def test_expired_windows_take_no_memory() -> None:
    flood = FloodControl(FloodLimits(enabled=True, bot=None))
    for chat in range(1, 20_001):
        assert passes(flood, chat, chat * 0.01)
    assert len(flood._windows) < 5_000


def test_callers_who_went_on_are_forgotten() -> None:
    flood = FloodControl(FloodLimits(bot=None))
    for chat in range(1, 5_001):
        flood.judge(BOT, chat, SEND, chat * 0.01)
        flood.judge(BOT, chat, SEND, chat * 0.01 + 0.001)
        flood.judge(BOT, chat, SEND, chat * 0.01 + 0.6)
    assert len(flood._ignored) == 5_000
    for chat in range(1, 2 * JUDGEMENTS_PER_SWEEP):
        flood.judge(BOT, -chat, TYPING, 200.0)
    assert len(flood._ignored) == 0
