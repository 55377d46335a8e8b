"""Admission's policy: the budgets of each method, the margin below Telegram's limits, and when a 429 blames the bot."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from floodgate.broker.admission import policy
from floodgate.broker.admission.policy import FloodWait, ask_for, call_timeout, policy_of, rates_of
from floodgate.broker.admission.windows import Window
from floodgate.broker.errors import SettingsError
from floodgate.broker.messages.job import Job, new_job
from floodgate.broker.messages.spooled_file import SpooledFile
from floodgate.broker.settings.model import CONSUMER_TIMEOUT_SECONDS, Limits, Settings, load_settings
from floodgate.broker.state.stores import open_store
from tests.admission_bench import ask_of, settings_of


def settings(**options: Any) -> Settings:
    return Settings(_env_file=None, **options)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("method", "params", "chat_units", "bot_units"),
    [
        ("sendMessage", {"text": "hi"}, 1, 1),
        ("editMessageText", {"text": "hi", "message_id": 1}, 1, 1),
        ("createForumTopic", {"name": "t"}, 1, 1),
        ("sendMediaGroup", {"media": [{"type": "photo"}] * 7}, 7, 7),
        ("copyMessages", {"from_chat_id": 1, "message_ids": list(range(40))}, 40, 40),
        ("sendChatAction", {"action": "typing"}, 0, 0),
        ("deleteMessage", {"message_id": 1}, 0, 1),
        ("getChat", {}, 0, 0),
    ],
)
def test_each_method_is_charged_to_the_documented_budgets(
    method: str, params: dict[str, Any], chat_units: int, bot_units: int
) -> None:
    ask = ask_for(new_job(method, {"chat_id": 5, **params}), settings())
    assert (policy.chat_cost(ask), policy.bot_cost(ask)) == (chat_units, bot_units)


def upload_of(size: int) -> Job:
    file = SpooledFile(name="document", key="jobs/b/j/0-01234567", size=size, sha256="0" * 64)
    return new_job("sendDocument", {"chat_id": 5}, files=(file,))


def test_a_job_with_files_asks_for_an_upload() -> None:
    text = new_job("sendMessage", {"chat_id": 5, "text": "hi"})
    assert [ask_for(job, settings()).upload for job in (upload_of(1), text)] == [True, False]


MEGABIT = 125_000  # bytes a second
MEGABYTE = 1_048_576


def test_a_call_gets_time_for_its_files_at_a_megabit_a_second_and_its_lease_is_longer() -> None:
    fifty = upload_of(50 * MEGABYTE)
    allowed = call_timeout(fifty, settings())
    assert allowed.total_seconds() > 1.05 * 50 * MEGABYTE / MEGABIT + 30
    assert ask_for(fifty, settings()).lease == allowed + timedelta(seconds=5)
    assert call_timeout(new_job("sendMessage", {"chat_id": 5, "text": "hi"}), settings()) == timedelta(seconds=30)


def test_no_upload_outlasts_the_consumer_timeout_and_two_gigabytes_get_half_an_hour() -> None:
    huge = [call_timeout(upload_of(size), settings()) for size in (2048 * MEGABYTE, 10**15)]
    assert huge[0] == huge[1] > timedelta(minutes=28)
    assert huge[0].total_seconds() + 30 + 5 + 60 <= CONSUMER_TIMEOUT_SECONDS
    patient = settings(call_timeout_seconds=600, lease_margin_seconds=600, hold_seconds=300, shutdown_seconds=700)
    assert call_timeout(upload_of(10**15), patient) == timedelta(seconds=840)


def test_reads_do_not_wait_in_a_line() -> None:
    assert policy.line_of(ask_of(5, method="getChat")) is None
    assert policy.line_of(ask_of(5)) == "5"


def test_an_ask_includes_its_lease() -> None:
    ask = ask_for(new_job("sendMessage", {"chat_id": 5, "text": "hi"}), settings(call_timeout_seconds=10))
    assert ask.lease.total_seconds() == 15


def test_the_margin_costs_less_than_three_percent_of_the_bots_rate() -> None:
    free = rates_of(Limits()).free
    assert 0.97 * 30 < policy.per_second(free) < 30
    assert free is not None
    assert free.window == Window(30, 1_020_000)


def test_spacing_alone_bounds_the_paid_rate() -> None:
    paid = rates_of(Limits()).paid
    assert paid is not None
    assert paid.window is None
    most_in_a_second = (1_000_000 + paid.tolerance_us) // paid.interval_us + 1
    assert 970 <= most_in_a_second <= 1000


@pytest.mark.parametrize(
    ("chat", "caps"),
    [("5", [1]), ("-5", [1, 20]), ("-1001234567890", [1, 20]), ("@name", [1, 20]), ("inline:x", []), (None, [])],
)
def test_each_chat_has_the_windows_of_its_kind(chat: str | None, caps: list[int]) -> None:
    assert [window.cap for window in rates_of(Limits()).windows(chat)] == caps


def test_a_rate_below_one_is_one_per_longer_window() -> None:
    assert policy.window_for(0.5, 1, 0) == Window(1, 2_000_000)
    assert policy.window_for(2.5, 1, 0) == Window(2, 1_000_000)


def test_limits_can_be_set_for_single_bots_and_chats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOODGATE_LIMITS__BOTS", '{"news": {"bot_per_second": 50}}')
    monkeypatch.setenv("FLOODGATE_LIMITS__CHATS", '{"news": {"-5": {"group_per_minute": 10}}}')
    rules = policy_of(settings())
    assert [round(policy.per_second(rules.rates(bot).free)) for bot in ("news", "default")] == [49, 29]
    assert [window.cap for window in rules.windows("news", "-5")] == [1, 10]
    assert [window.cap for window in rules.windows("default", "-5")] == [1, 20]


def test_a_chats_own_limits_are_found_by_name_case_insensitively() -> None:
    rules = policy_of(settings_of(chats={"default": {"@News": {"group_per_minute": 10}}}))
    assert [window.cap for window in rules.windows("default", "@news")] == [1, 10]


def test_limits_for_an_invalid_chat_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"FLOODGATE_LIMITS__CHATS .*neither a number nor"):
        load_settings(_env_file=None, limits={"chats": {"default": {"no chat": {"chat_per_second": 1}}}})


def test_with_limits_off_nothing_is_metered() -> None:
    rates = policy_of(settings_of(enabled=False)).default
    assert (rates.free, rates.paid, rates.windows("-5")) == (None, None, ())


def test_refusals_in_three_chats_at_once_blame_the_bot() -> None:
    refusals = [FloodWait("a", 0, False), FloodWait("b", 500_000, False), FloodWait("c", 900_000, False)]
    assert policy.blames_bot(policy.recent(refusals, 900_000))
    assert not policy.blames_bot(policy.recent(refusals, 2_100_000))


def test_refusals_in_one_chat_never_blame_the_bot() -> None:
    refusals = [FloodWait("a", at, True) for at in range(20)]
    assert not policy.blames_bot(policy.recent(refusals, 20))


def test_a_learned_rate_reduction_fades() -> None:
    lowered = policy.slower(1000)
    assert lowered == 930
    assert policy.learned_permille(lowered, 0, 10 * policy.SECOND) == 940
    assert policy.learned_permille(lowered, 0, 100 * policy.SECOND) == 1000


def test_only_a_slow_call_causes_a_rest_for_its_chat() -> None:
    assert policy.rest_after(policy.SECOND) == 0
    assert policy.rest_after(10 * policy.SECOND) == 10 * policy.SECOND
    assert policy.rest_after(600 * policy.SECOND) == policy.REST_MAX_US


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "sqlite://host/state.db"])
def test_a_state_url_without_a_file_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="FLOODGATE_STATE_URL"):
        open_store(settings(state_url=url))


@pytest.mark.parametrize(
    ("method", "family"),
    [
        ("sendMessage", "messages"),
        ("sendMediaGroup", "messages"),
        ("editMessageText", "edits"),
        ("sendChatAction", "typing"),
        ("sendMessageDraft", "typing"),
        ("deleteMessage", "other"),
        ("getChat", "other"),
        ("answerWebAppQuery", "other"),
    ],
)
def test_a_429_slows_down_the_family_of_its_call(method: str, family: str) -> None:
    assert policy.family_of(ask_of(5, method=method)) == family


def test_the_distance_doubles_up_to_a_bound_and_shrinks_to_that_of_the_full_pace() -> None:
    assert [policy.wider(permille) for permille in (1000, 1500, 3999, 4000, 8000)] == [2000, 3000, 7998, 8000, 8000]
    now, step = 10**15, policy.NARROWING_US_PER_PERMILLE
    found = [policy.narrowed_permille(2000, now, now + passed) for passed in (-5, 0, step, 500 * step, 10**12)]
    assert found == [2000, 2000, 1999, 1500, 1000]
    end = policy.recovered_at(2000, now)
    assert policy.narrowed_permille(2000, now, end - 1) > policy.narrowed_permille(2000, now, end) == 1000


def test_the_distance_is_that_of_the_slowest_window() -> None:
    windows = (Window(1, 1_050_000), Window(20, 60_250_000))
    assert policy.spacing_us(windows, 1000) == 3_012_500
    assert policy.spacing_us(windows[:1], 2500) == 2_625_000
    assert policy.spacing_us((), 8000) == 0
