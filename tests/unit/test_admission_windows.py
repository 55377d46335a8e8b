"""The arithmetic of windows and pacing, compared with counting by hand."""

from __future__ import annotations

import itertools

from floodgate.broker.admission.clock import Anchor, ClockReading, store_time
from floodgate.broker.admission.windows import (
    Budget,
    Pace,
    Window,
    bot_refund,
    bot_spend,
    bot_turn_at,
    cautious_budget,
    free_at,
    merged,
    refund,
    resume_evenly,
    spend,
    turn_at,
)

GROUP = (Window(1, 1_000), Window(3, 60_000))


def test_an_idle_chat_can_send_at_once() -> None:
    assert free_at([], GROUP, 1) == 0


def test_a_unit_leaves_its_window_after_the_windows_length() -> None:
    assert free_at([5_000], GROUP, 1) == 6_000
    assert free_at([0, 1_000, 2_000], GROUP, 1) == 60_000


def test_a_call_of_n_units_needs_room_for_n() -> None:
    assert free_at([0, 10_000], (Window(3, 60_000),), 2) == 60_000
    assert free_at([0, 10_000], (Window(3, 60_000),), 3) == 70_000


def test_a_call_without_units_is_not_limited_by_a_window() -> None:
    assert free_at([0, 1, 2], GROUP, 0) == 0


def test_a_position_in_line_gives_the_time_of_its_turn() -> None:
    turns = [turn_at([], GROUP, 0, ahead, 1) for ahead in range(8)]
    assert turns == [0, 1_000, 2_000, 60_000, 61_000, 62_000, 120_000, 121_000]


def test_a_call_larger_than_the_window_leaves_a_debt() -> None:
    log = spend([], (Window(3, 1_000),), 7, 0)
    assert log == [1_000, 1_000, 2_000]
    assert free_at(log, (Window(3, 1_000),), 1) == 2_000
    assert free_at(log, (Window(3, 1_000),), 3) == 3_000


def test_a_refund_undoes_the_spending() -> None:
    log = spend([10, 20], GROUP, 1, 30)
    assert refund(log, GROUP, 1, 30) == [10, 20]
    assert refund(log, GROUP, 1, 31) == log


def test_merging_two_logs_keeps_the_newest_units() -> None:
    assert merged([1, 5], [3, 7], GROUP) == [3, 5, 7]


def sends(pace: Pace, count: int, *, now: int) -> list[int]:
    """The times of an idle bot's messages, each sent as soon as possible."""
    budget, sent = Budget([]), []
    for _ in range(count):
        now = max(now, bot_turn_at(budget, pace, 0, 1, now))
        bot_spend(budget, pace, 1, now)
        sent.append(now)
    return sent


def test_a_bot_may_burst_up_to_its_tolerance_and_is_then_paced() -> None:
    pace = Pace(None, interval_us=10, tolerance_us=20)
    assert sends(pace, 6, now=1_000) == [1_000, 1_000, 1_000, 1_010, 1_020, 1_030]


def test_a_burst_leaves_no_gap_in_the_seconds_after_it() -> None:
    """A waiting job soon gets its turn, whenever it asks."""
    pace = Pace(Window(30, 1_020), interval_us=34, tolerance_us=136)
    gaps = [later - earlier for earlier, later in itertools.pairwise(sends(pace, 90, now=10_000))]
    assert gaps[:4] == [0, 0, 0, 0], "an idle bot's first messages go at once"
    assert max(gaps[30:]) <= 68


def test_a_late_bot_catches_up() -> None:
    pace = Pace(None, interval_us=10, tolerance_us=20)
    budget = Budget([], arrival_us=100)
    bot_spend(budget, pace, 1, 95)
    assert bot_turn_at(budget, pace, 0, 1, 95) <= 95
    assert budget.arrival_us == 110


def test_jobs_ahead_take_their_slots_first() -> None:
    pace = Pace(Window(3, 100), interval_us=30, tolerance_us=0)
    budget = Budget([0, 30, 60], arrival_us=90)
    assert [bot_turn_at(budget, pace, ahead, 1, 80) for ahead in range(4)] == [100, 130, 160, 200]


def test_a_refund_returns_a_slot() -> None:
    pace = Pace(Window(3, 100), interval_us=30, tolerance_us=0)
    budget = Budget([])
    bot_spend(budget, pace, 2, 50)
    bot_refund(budget, pace, 2, 50)
    assert (budget.log, bot_turn_at(budget, pace, 0, 3, 50)) == ([], 50)


def test_after_a_pause_the_bot_does_not_catch_up() -> None:
    pace = Pace(None, interval_us=10, tolerance_us=20)
    budget = Budget([])
    resume_evenly(budget, pace, 500)
    bot_spend(budget, pace, 1, 500)
    assert bot_turn_at(budget, pace, 0, 1, 500) == 510


def test_a_bot_with_an_unknown_history_starts_evenly() -> None:
    pace = Pace(Window(4, 1_000), interval_us=250, tolerance_us=500)
    budget = cautious_budget(pace, 10_000)
    assert budget.log == [9_000, 9_250, 9_500, 9_750]
    assert [bot_turn_at(budget, pace, ahead, 1, 10_000) for ahead in range(3)] == [10_000, 10_250, 10_500]


def test_store_time_is_unix_time_at_first() -> None:
    now, anchor = store_time(ClockReading("a", 50, 1_000), Anchor("", 0), 0)
    assert (now, anchor) == (1_000, Anchor("a", 950))


def test_store_time_follows_the_monotonic_clock_and_not_the_wall_clock() -> None:
    now, _ = store_time(ClockReading("a", 60, 99_999_999), Anchor("a", 950), 0)
    assert now == 1_010


def test_store_time_continues_from_the_last_grant_when_the_clock_was_set_back() -> None:
    now, anchor = store_time(ClockReading("a", 10, 0), Anchor("a", 950), 1_000)
    assert now == 1_000
    assert store_time(ClockReading("a", 15, 0), anchor, 1_000)[0] == 1_005


def test_after_a_reboot_store_time_is_unix_time_again_but_never_earlier() -> None:
    assert store_time(ClockReading("b", 5, 2_000), Anchor("a", 950), 1_500)[0] == 2_000
    assert store_time(ClockReading("b", 5, 1_000), Anchor("a", 950), 1_500)[0] == 1_500
