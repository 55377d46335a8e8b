"""Reading refusals from bodies and from python-telegram-bot's exceptions."""

from __future__ import annotations

import json
import socket
from datetime import timedelta

import pytest
from telegram import error as ptb

from floodgate.actors.answers import (
    MAX_DESCRIPTION,
    BotApiRefusalError,
    Break,
    Refusal,
    answer_to_error,
    read_refusal,
    seconds_to_wait,
)
from floodgate.broker.errors import CutOffError, NotSentError


def _body(**fields: object) -> bytes:
    return json.dumps({"ok": False, "error_code": 400, "description": "Bad Request: no"} | fields).encode()


def test_a_refusal_keeps_code_description_and_parameters() -> None:
    body = _body(error_code=429, description="Too Many Requests: retry after 7", parameters={"retry_after": 7})
    assert read_refusal(429, body) == Refusal(429, "Too Many Requests: retry after 7", retry_after=timedelta(seconds=7))


def test_a_migrated_chat_is_read_as_a_chat_key() -> None:
    refusal = read_refusal(400, _body(parameters={"migrate_to_chat_id": -1001234567890}))
    assert refusal.migrate_to == "-1001234567890"


@pytest.mark.parametrize(
    "body", [b"<html>502 Bad Gateway</html>", b"", b"null", b"[]", b"{}", b'{"ok":true}', b"\xff\xfe", b"[" * 100_000]
)
def test_a_body_that_is_not_from_the_bot_api_is_described_as_such(body: bytes) -> None:
    assert read_refusal(502, body) == Refusal(502, "HTTP 502 Bad Gateway", from_bot_api=False)


@pytest.mark.parametrize(
    "fields",
    [
        {"parameters": []},
        {"parameters": {"retry_after": "7", "migrate_to_chat_id": "x"}},
        {"parameters": {"retry_after": True, "migrate_to_chat_id": 0}},
        {"parameters": {"retry_after": -1, "migrate_to_chat_id": 2**60}},
        {"error_code": "400"},
        {"error_code": True},
        {"error_code": 7},
    ],
)
def test_a_field_of_the_wrong_type_counts_as_absent(fields: dict[str, object]) -> None:
    assert read_refusal(400, _body(**fields)) == Refusal(400, "Bad Request: no")


def test_an_endless_description_is_truncated() -> None:
    assert len(read_refusal(400, _body(description="x" * 10_000)).description) == MAX_DESCRIPTION


@pytest.mark.parametrize(
    ("value", "wait"),
    [
        (3, timedelta(seconds=3)),
        (0.5, timedelta(seconds=0.5)),
        (timedelta(seconds=4), timedelta(seconds=4)),
        pytest.param(10**400, timedelta(days=1), id="too-large-for-a-float"),
        (float("inf"), timedelta(days=1)),
        (float("nan"), None),
        (None, None),
    ],
)
def test_a_wait_of_either_type_is_read_and_capped_at_a_day(value: object, wait: timedelta | None) -> None:
    assert seconds_to_wait(value) == wait


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (BotApiRefusalError(Refusal(418, "tea")), Refusal(418, "tea")),
        (ptb.BadRequest("Chat not found"), Refusal(400, "Chat not found")),
        (
            ptb.Forbidden("Forbidden: bot was blocked by the user"),
            Refusal(403, "Forbidden: bot was blocked by the user"),
        ),
        (ptb.InvalidToken(), Refusal(401, "Invalid token")),
        (ptb.EndPointNotFound("gone"), Refusal(404, "gone")),
        (ptb.Conflict("other"), Refusal(409, "other")),
        (
            ptb.ChatMigrated(-1001234567890),
            Refusal(
                400,
                "Group migrated to supergroup. New chat id: -1001234567890",
                migrate_to="-1001234567890",
            ),
        ),
        (ptb.TimedOut("late"), Break("TimedOut", surely_not_sent=False)),
        (ptb.NetworkError("a text that may hold a URL"), Break("NetworkError", surely_not_sent=False)),
        (ptb.TelegramError("odd"), Break("TelegramError", surely_not_sent=False)),
        (ValueError("odd"), Break("ValueError", surely_not_sent=False)),
    ],
)
def test_each_exception_of_the_library_is_read_by_its_own_type(error: BaseException, answer: object) -> None:
    assert answer_to_error(error) == answer


def test_flood_control_is_read_from_the_librarys_error_with_either_form_of_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.warns(match="retry_after"):
        as_int = answer_to_error(ptb.RetryAfter(7))
    monkeypatch.setenv("PTB_TIMEDELTA", "1")
    as_timedelta = answer_to_error(ptb.RetryAfter(timedelta(seconds=7)))
    for answer in (as_int, as_timedelta):
        assert isinstance(answer, Refusal)
        assert (answer.status, answer.retry_after) == (429, timedelta(seconds=7))


@pytest.mark.parametrize(
    ("cause", "surely_not_sent"),
    [
        (NotSentError("no"), True),
        (CutOffError("perhaps"), False),
        (ConnectionRefusedError(111, "refused"), True),
        (socket.gaierror(-2, "unknown name"), True),
        (ConnectionResetError(104, "reset"), False),
        (TimeoutError(), False),
    ],
)
def test_the_cause_shows_whether_a_call_was_sent_before_a_network_error(
    cause: BaseException, surely_not_sent: bool
) -> None:
    error = ptb.NetworkError("x")
    error.__cause__ = cause
    answer = answer_to_error(error)
    assert isinstance(answer, Break)
    assert answer.surely_not_sent is surely_not_sent


def test_the_context_of_an_error_is_ignored() -> None:
    error = ptb.TimedOut()
    error.__context__ = NotSentError("another call")
    assert answer_to_error(error) == Break("TimedOut", surely_not_sent=False)


def test_a_circular_exception_chain_ends() -> None:
    first, second = ptb.NetworkError("a"), ptb.NetworkError("b")
    first.__cause__, second.__cause__ = second, first
    assert answer_to_error(first) == Break("NetworkError", surely_not_sent=False)
