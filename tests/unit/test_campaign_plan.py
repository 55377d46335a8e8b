"""A campaign's definition, schedule, rules and check."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from floodgate.broker.admission.contract import Pause
from floodgate.broker.errors import CampaignError
from floodgate.producer.campaigns.definition import Rules, Schedule, parse_definition, read_definition
from floodgate.producer.campaigns.operations.checks import check
from floodgate.producer.campaigns.sending.rules import FloodWaits, Watch
from floodgate.producer.campaigns.sending.schedule import STEP, expected_end, missed_by, open_zones
from floodgate.producer.campaigns.states import FOLLOWING, CampaignState, RecipientState
from floodgate.producer.campaigns.storage.records import Recipient, RecipientOutcome

ZONES = {0: "UTC", 1: "Asia/Tokyo", 2: "America/New_York"}


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def schedule(**fields: Any) -> Schedule:
    return Schedule.model_validate(fields)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"content": {"text": "x"}}, "name"),
        ({"name": "Spring!", "content": {"text": "x"}}, "name"),
        ({"name": "a"}, r"give either \[content\] or \[\[variants\]\]"),
        ({"name": "a", "content": {"method": "getUpdates"}}, "getUpdates cannot be queued"),
        ({"name": "a", "content": {"text": "x", "chat_id": 1}}, "chat_id comes from the audience"),
        (
            {"name": "a", "content": {"method": "sendMediaGroup", "unsubscribe": "Stop"}},
            "sendMediaGroup has no buttons",
        ),
        ({"name": "a", "content": {"text": "x", "unsubscribe": "Stop", "reply_markup": "{}"}}, "an inline_keyboard"),
        ({"name": "a", "content": {"text": "x", "unsubscribe_answer": "x" * 201}}, "unsubscribe_answer"),
        ({"name": "a", "content": {"text": "x"}, "canary": -1}, "canary"),
        ({"name": "a", "content": {"text": "x"}, "rest": "0:00:00"}, "rest"),
        ({"name": "a", "content": {"text": "x"}, "rest": "P32D"}, "rest"),
        ({"name": "a", "content": {"text": "x"}, "colour": 1}, "colour"),
        ({"name": "a", "variants": [{"name": "a", "share": 0.4, "content": {"text": "x"}}]}, "add up to 0.4, not to 1"),
        ({"name": "a", "content": {"text": "x"}, "schedule": {"zone": "Mars"}}, "'Mars' is not a time zone"),
        ({"name": "a", "content": {"text": "x"}, "schedule": {"weekdays": []}}, "nothing would ever be sent"),
    ],
)
def test_a_wrong_definition_is_refused_in_a_sentence_that_names_the_field(fields: dict[str, Any], why: str) -> None:
    with pytest.raises(CampaignError, match=why):
        parse_definition(fields, "spring.toml")


def test_a_definition_is_read_from_toml(tmp_path: Path) -> None:
    path = tmp_path / "spring.toml"
    path.write_text(
        'name = "spring"\n[content]\ntext = "Hi"\n[schedule]\nquiet = {since = 22:00:00, until = 08:00:00}\n'
    )
    assert read_definition(path).contents[0].params == {"text": "Hi"}
    path.write_text("name = ")
    with pytest.raises(CampaignError, match="is not valid TOML"):
        read_definition(path)
    with pytest.raises(CampaignError, match="No such file"):
        read_definition(tmp_path / "gone.toml")


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ("2026-07-01T05:00", []),  # not begun
        ("2026-07-01T06:00", []),
        ("2026-07-01T09:00", [0]),
        ("2026-07-01T13:00", [0, 2]),  # New York is 4 hours behind in summer
        ("2026-07-02T00:00", [0, 1, 2]),  # Tokyo's 9 o'clock was over when it began
    ],
)
def test_a_local_time_opens_each_zone_at_its_own_time(now: str, expected: list[int]) -> None:
    started = moment("2026-07-01T05:30")
    assert open_zones(schedule(local_time="09:00"), ZONES, started, moment(now)) == expected


def test_a_local_time_follows_summer_time() -> None:
    plan = schedule(local_time="09:00")
    berlin = {0: "Europe/Berlin"}
    assert open_zones(plan, berlin, moment("2026-03-28T12:00"), moment("2026-03-29T06:59")) == []
    assert open_zones(plan, berlin, moment("2026-03-28T12:00"), moment("2026-03-29T07:00")) == [0], "UTC+2 since 01:00"
    assert open_zones(plan, berlin, moment("2026-10-24T12:00"), moment("2026-10-25T07:59")) == []
    assert open_zones(plan, berlin, moment("2026-10-24T12:00"), moment("2026-10-25T08:00")) == [0], "UTC+1 again"


def test_quiet_hours_may_span_midnight() -> None:
    plan = schedule(quiet={"since": "22:00", "until": "08:00"})
    started = moment("2026-07-01T00:00")
    assert open_zones(plan, {0: "UTC"}, started, moment("2026-07-01T07:59")) == []
    assert open_zones(plan, {0: "UTC"}, started, moment("2026-07-01T08:00")) == [0]
    assert open_zones(plan, {0: "UTC"}, started, moment("2026-07-01T22:00")) == []


def test_weekdays_are_those_of_the_recipient() -> None:
    plan = schedule(weekdays=["mon"])
    sunday_evening = moment("2026-07-05T20:00")
    assert open_zones(plan, ZONES, sunday_evening, sunday_evening) == [1], "it is Monday in Tokyo"


@pytest.mark.parametrize(
    ("plan", "waiting", "hours"),
    [
        ({}, {0: 36_000}, 1),
        ({"at": "2026-07-01T14:00:00Z"}, {0: 36_000}, 3),
        ({"quiet": {"since": "12:30", "until": "22:00"}}, {0: 36_000}, 10.5),
        ({"quiet": {"since": "20:00", "until": "23:00"}}, {0: 18_000, 1: 36_000}, 3),  # in Tokyo until 14:00 UTC
        ({"local_time": "11:00"}, {0: 36_000}, 24),
        ({"weekdays": ["thu"]}, {0: 36_000}, 13),
    ],
)
def test_the_expected_end_considers_the_hours_at_which_nothing_is_sent(
    plan: dict[str, Any], waiting: dict[int, int], hours: float
) -> None:
    noon = moment("2026-07-01T12:00")  # a Wednesday
    end = expected_end(schedule(**plan), {0: "UTC", 1: "Asia/Tokyo"}, waiting, noon, noon, per_second=10)
    assert end is not None
    assert abs(end - timedelta(hours=hours)) <= STEP


def test_an_end_beyond_all_open_hours_is_not_foreseen() -> None:
    noon = moment("2026-07-01T12:00")
    assert expected_end(schedule(weekdays=["thu"]), {0: "UTC"}, {0: 10**7}, noon, noon, per_second=10) is None


def test_a_start_that_was_missed_is_noticed() -> None:
    plan = schedule(at="2026-07-01T09:00Z", start_within=3600)
    started = moment("2026-06-30T12:00")
    assert missed_by(plan, started, moment("2026-07-01T10:00")) is None
    assert missed_by(plan, started, moment("2026-07-01T11:00")) == timedelta(hours=2)


def test_equal_refusals_in_a_row_stop_the_campaign() -> None:
    watch = Watch(Rules(equal_refusals_in_a_row=3))
    refused = RecipientOutcome(1, 0, RecipientState.FAILED, error="content: can't parse entities")
    assert watch.see([refused, refused, RecipientOutcome(2, 0, RecipientState.SENT), refused, refused]) is None
    assert "3 recipients in a row were refused for the same reason: content" in str(watch.see([refused]))


@pytest.mark.parametrize(
    ("state", "why"),
    [
        (RecipientState.FAILED, "5 of the latest 20 recipients were refused"),
        (RecipientState.UNREACHABLE, "were unreachable"),
    ],
)
def test_a_share_of_refusals_stops_the_campaign_once_the_window_is_full(state: RecipientState, why: str) -> None:
    watch = Watch(Rules(window=20, refused_share=0.2, unreachable_share=0.2))
    others = [RecipientOutcome(n, 0, state, error=str(n)) for n in range(5)]
    assert watch.see([*others, *(RecipientOutcome(n, 0, RecipientState.SENT) for n in range(14))]) is None
    assert why in str(watch.see([RecipientOutcome(99, 0, RecipientState.SENT)]))


def test_more_answers_429_than_allowed_within_the_window_stop_the_campaign() -> None:
    watch = Watch(Rules(window=20, too_many_requests=2))
    assert watch.see_flood_waits(2) is None
    assert watch.see([RecipientOutcome(n, 0, RecipientState.SENT) for n in range(21)]) is None
    assert watch.see_flood_waits(2) is None, "the first two were before the window"
    assert "more than 2 of its calls with 429" in str(watch.see_flood_waits(1))


def test_an_answer_429_is_counted_once_and_only_if_it_concerns_the_campaign() -> None:
    def pause(chat: str | None, seconds: float, why: str = "429") -> Pause:
        return Pause(chat, timedelta(seconds=seconds), why)

    seen, chats = FloodWaits(), {"1", "2"}
    assert seen.new([pause("1", 5), pause("3", 5), pause("2", 5, "operator"), pause(None, 3)], chats, 100.0) == 2
    assert seen.new([pause("1", 4), pause(None, 2)], chats, 101.0) == 0, "the same pauses, a second later"
    assert seen.new([pause("1", 9), pause("2", 9)], chats, 102.0) == 2, "a longer one, and another"
    assert seen.new([pause("1", 1)], chats, 200.0) == 1, "the earlier ones are over"


def test_every_state_may_be_left_unless_it_is_final() -> None:
    assert {state for state in CampaignState if not FOLLOWING[state]} == {CampaignState.CANCELLED}


def recipient(number: int, **fields: Any) -> Recipient:
    return Recipient(number, str(number), fields, 0, RecipientState.WAITING, 0, None, None, None, None)


def test_the_check_renders_all_and_counts_what_is_wrong() -> None:
    content = {
        "text": "<b>{{ name }}</b>{{ tail|default('') }}",
        "parse_mode": "HTML",
        "reply_markup": {"inline_keyboard": [[{"text": "Go", "url": "{{ url|default('https://example.org') }}"}]]},
    }
    found = check(
        parse_definition({"name": "a", "content": content}, "x"),
        [
            recipient(1, name="Ann"),
            recipient(2),
            recipient(3, name="x" * 5000),
            recipient(4, name="y" * 4096),
            recipient(5, name="Ann", url="ftp://x"),
            recipient(6),
        ],
    )
    assert (found.checked, found.skipped, found.longest, found.longest_chat) == (6, 0, 5000, "3")
    assert [(finding.recipients, finding.first, finding.why) for finding in found.findings] == [
        (2, "2", "The field 'name' is missing and has no fallback."),
        (1, "3", "text is longer than 4096 characters."),
        (1, "5", "The url of a button does not start with http://, https:// or tg://."),
    ]


def test_recipients_without_a_field_may_be_skipped() -> None:
    definition = parse_definition({"name": "a", "content": {"text": "{{ name }}", "missing": "skip"}}, "x")
    found = check(definition, [recipient(1, name="Ann"), recipient(2)])
    assert (found.checked, found.skipped, found.findings) == (2, 1, ())


def test_the_check_counts_the_unsubscribe_button() -> None:
    buttons = [[{"text": str(n), "callback_data": "x"}] for n in range(100)]
    content = {"text": "Hi", "unsubscribe": "{{ stop }}", "reply_markup": {"inline_keyboard": buttons}}
    full = check(parse_definition({"name": "a", "content": content}, "x"), [recipient(1, stop="Stop")])
    assert [finding.why for finding in full.findings] == ["The keyboard has more than 100 buttons."]
    del content["reply_markup"]
    empty = check(
        parse_definition({"name": "a", "content": content}, "x"), [recipient(1, stop="Stop"), recipient(2, stop=" ")]
    )
    assert [(finding.first, finding.why) for finding in empty.findings] == [("2", "A button has no text.")]
