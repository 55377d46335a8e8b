"""Selecting dead letters, and showing bytes of any kind."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from floodgate.broker.errors import InvalidParamsError
from floodgate.broker.messages import dead_letters, queue_names
from floodgate.broker.messages.dead_letters import DeadLetter, read_dead_letter
from floodgate.broker.messages.job import Job, encode_job, new_job
from floodgate.letters.criteria import Criteria, chat_of, harmless, moment, span
from floodgate.letters.replay import renewed

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


def letter(*, died_at: datetime | None = NOW, body: bytes = b"", **fields: Any) -> DeadLetter:
    params = {"chat_id": -5, "text": "Good Mörning"} | fields.pop("params", {})
    job = None if body else new_job("sendMessage", params, job_id="one", campaign="spring", bot="news")
    return DeadLetter("q", "one", fields.pop("reason", "content"), "", 1, died_at, body, job)


@pytest.mark.parametrize(
    ("criteria", "fits"),
    [
        (Criteria(), True),
        (Criteria(ids=frozenset({"one", "two"})), True),
        (Criteria(ids=frozenset({"two"})), False),
        (Criteria(bot="news", chat="-5", campaign="spring", reasons=frozenset({"content", "rights"})), True),
        (Criteria(bot="default"), False),
        (Criteria(reasons=frozenset({"rights"})), False),
        (Criteria(chat="5"), False),
        (Criteria(campaign="autumn"), False),
        (Criteria(text="good mÖR"), True),
        (Criteria(text="evening"), False),
        (Criteria(since=NOW), True),
        (Criteria(since=NOW + timedelta(seconds=1)), False),
        (Criteria(until=NOW), False),
        (Criteria(until=NOW + timedelta(seconds=1), since=NOW), True),
        (Criteria(text="good", campaign="autumn"), False),
    ],
    ids=str,
)
def test_a_letter_must_match_all_criteria(criteria: Criteria, fits: bool) -> None:
    assert criteria.match(letter()) is fits


def test_a_caption_counts_as_text() -> None:
    assert Criteria(text="cat").match(letter(params={"caption": "A cat", "text": None}))


def test_bytes_that_are_not_a_job_have_a_reason_and_text_but_no_bot_chat_or_campaign() -> None:
    malformed = letter(body=b"{shopping list", reason="malformed")
    assert Criteria(reasons=frozenset({"malformed"}), text="shopping").match(malformed)
    for criteria in (Criteria(bot="news"), Criteria(chat="-5"), Criteria(campaign="spring")):
        assert not criteria.match(malformed)


def test_a_letter_without_a_time_matches_no_time_span() -> None:
    assert Criteria().match(letter(died_at=None))
    assert not Criteria(since=NOW).match(letter(died_at=None))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", NOW - timedelta(seconds=90)),
        ("15m", NOW - timedelta(minutes=15)),
        ("2h", NOW - timedelta(hours=2)),
        ("7d", NOW - timedelta(days=7)),
        ("1w", NOW - timedelta(weeks=1)),
        ("2026-11-19T10:00+01:00", datetime(2026, 11, 19, 9, tzinfo=UTC)),
        ("2026-11-19", datetime(2026, 11, 19).astimezone()),
    ],
)
def test_a_time_is_an_age_or_a_date(text: str, expected: datetime) -> None:
    assert moment(text, NOW) == expected
    assert moment(None, NOW) is None


@pytest.mark.parametrize("text", ["", "soon", "2 hours", "h", "-2h", "2026-13-01", "9999999h"])
def test_an_invalid_time_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(InvalidParamsError, match="is not a time: write"):
        moment(text, NOW)
    with pytest.raises(InvalidParamsError, match="is not a duration: write"):
        span(text)


def test_a_chat_criterion_has_the_form_of_a_chat_id_in_a_call() -> None:
    assert (chat_of(" -5 "), chat_of("@News"), chat_of(None)) == ("-5", "@news", None)
    with pytest.raises(InvalidParamsError):
        chat_of("nobody")


def test_arbitrary_bytes_are_shown_safely_in_a_terminal() -> None:
    shown = harmless(b"\x1b]0;owned\x07 \xff\xfe \x00 h\xc3\xb6 \xe2\x80\xae")
    assert shown.isprintable()
    assert "hö" in shown


def test_a_replayed_job_starts_afresh_and_keeps_its_callers_options() -> None:
    job = Job.model_validate(
        new_job("sendMessage", {"chat_id": 5, "text": "x"}, campaign="spring", priority="bulk").model_dump()
        | {"attempts": 8, "unsent": 3, "created_ms": 5, "not_before_ms": 7, "expires_ms": 99}
    )
    fresh = renewed(job, "content", 1000)
    assert (fresh.attempts, fresh.unsent, fresh.created_ms, fresh.not_before_ms, fresh.expires_ms) == (
        0,
        0,
        1000,
        None,
        99,
    )
    assert (fresh.id, fresh.params, fresh.campaign, fresh.priority) == (job.id, job.params, job.campaign, job.priority)
    assert renewed(job, dead_letters.REASON_EXPIRED, 1000).expires_ms is None


def test_a_message_dead_lettered_by_rabbitmq_has_its_reason_and_time() -> None:
    body = encode_job(new_job("sendMessage", {"chat_id": 5, "text": "x"}), "send.news.bulk.01")
    death = {"reason": "delivery_limit", "queue": "send.news.bulk.01", "time": datetime(2026, 11, 20, 12)}  # noqa: DTZ001
    read = read_dead_letter("dead.news", "one", {"x-death": [death]}, body)
    assert (read.reason, read.queue, read.died_at) == ("delivery-limit", "send.news.bulk.01", NOW)
    fallen = read_dead_letter(queue_names.UNROUTABLE_QUEUE, "one", {"x-death": [{"reason": "expired"}]}, body)
    assert fallen.reason == dead_letters.REASON_UNROUTABLE


@pytest.mark.parametrize("died", [10**30, -(10**30), "soon", True, None])
def test_any_header_can_be_read(died: object) -> None:
    assert read_dead_letter("dead.news", None, {dead_letters.DIED_US: died}, b"\xff").job is None
