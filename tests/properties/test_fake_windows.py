"""Under any load, no window of the fake's limits is exceeded, and no call is refused needlessly."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from floodgate.fake_telegram.limits import CallCost, FloodControl, FloodLimits, Rate
from floodgate.fake_telegram.summary import fullest

# In fractions that floats represent exactly: a gap of 1e-234 s is lost in the sum and would look like an excess.
GAPS = st.lists(st.integers(0, 3 * 1024).map(lambda ticks: ticks / 1024), min_size=1, max_size=120)
CHATS = st.lists(st.sampled_from([5, 6, 7, -8, -9]), min_size=1, max_size=120)


@given(GAPS, CHATS)
def test_no_window_ever_exceeds_its_limit(gaps: list[float], chats: list[int]) -> None:
    limits = FloodLimits(bot=Rate(3, 1.0), group=Rate(4, 10.0), growth_seconds=0)
    flood = FloodControl(limits)
    now, passed = 0.0, []
    for gap, chat in zip(gaps, chats, strict=False):
        now += gap
        if flood.judge(1, chat, CallCost(chat=True), now).passes:
            passed.append((chat, now, 1))
    assert fullest(((1, at, cost) for _, at, cost in passed), 1.0) <= 3
    assert fullest(passed, 1.0) <= 1
    assert fullest([charge for charge in passed if charge[0] < 0], 10.0) <= 4


@given(GAPS, CHATS)
def test_a_caller_that_waits_as_told_is_admitted(gaps: list[float], chats: list[int]) -> None:
    flood = FloodControl(FloodLimits(bot=Rate(3, 1.0), group=Rate(4, 10.0)))
    now = 0.0
    for gap, chat in zip(gaps, chats, strict=False):
        now += gap
        verdict = flood.judge(1, chat, CallCost(chat=True), now)
        if not verdict.passes:
            now += verdict.retry_after
            assert flood.judge(1, chat, CallCost(chat=True), now).passes


@given(st.integers(1, 200), st.integers(1, 30))
def test_a_large_call_blocks_as_many_windows_as_it_fills(cost: int, count: int) -> None:
    flood = FloodControl(FloodLimits(bot=Rate(count, 1.0), growth_seconds=0))
    assert flood.judge(1, None, CallCost(cost=cost), 0.0).passes
    windows = -(-cost // count)
    assert not flood.judge(1, None, CallCost(cost=count), windows - 0.5).passes
    assert flood.judge(1, None, CallCost(cost=count), windows + 0.5).passes
