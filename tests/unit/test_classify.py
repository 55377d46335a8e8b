"""Each row of the table of Bot API errors, with Telegram's texts."""

from __future__ import annotations

from datetime import timedelta

import pytest

from floodgate.actors.answers import Accepted, Break, Refusal
from floodgate.actors.classify import DEFAULT_RETRY_AFTER, CallFacts, call_of, classify
from floodgate.actors.outcomes import (
    BotRefused,
    FailureReason,
    Migrated,
    NothingToDo,
    Outcome,
    Paused,
    Retry,
    Uncertain,
    dead,
)
from floodgate.broker.admission.contract import Dead, Sent
from floodgate.broker.messages.job import new_job

SEND = CallFacts("sendMessage")
EDIT = CallFacts("editMessageText")

PERMANENT = [
    (403, "Forbidden: bot was blocked by the user", FailureReason.CHAT_UNREACHABLE),
    (403, "Forbidden: user is deactivated", FailureReason.CHAT_UNREACHABLE),
    (403, "Forbidden: bot can't initiate conversation with a user", FailureReason.CHAT_UNREACHABLE),
    (403, "Forbidden: bots can't send messages to bots", FailureReason.CHAT_UNREACHABLE),
    (403, "Forbidden: bot can't send messages to bots", FailureReason.CHAT_UNREACHABLE),
    (403, "Forbidden: bot was kicked from the supergroup chat", FailureReason.CHAT_UNREACHABLE),
    (403, "Forbidden: bot is not a member of the channel chat", FailureReason.CHAT_UNREACHABLE),
    (403, "Forbidden: the group chat was deleted", FailureReason.CHAT_UNREACHABLE),
    (403, "Forbidden: MESSAGE_DELETE_FORBIDDEN", FailureReason.RIGHTS),
    (400, "Bad Request: chat not found", FailureReason.CHAT_NOT_FOUND),
    (400, "Bad Request: user not found", FailureReason.CHAT_NOT_FOUND),
    (400, "Bad Request: PEER_ID_INVALID", FailureReason.CHAT_NOT_FOUND),
    (400, "Bad Request: group is deactivated", FailureReason.CHAT_NOT_FOUND),
    (400, "Bad Request: chat_id is empty", FailureReason.CHAT_NOT_FOUND),
    (400, "Bad Request: not enough rights to send text messages to the chat", FailureReason.RIGHTS),
    (400, "Bad Request: have no rights to send a message", FailureReason.RIGHTS),
    (400, "Bad Request: CHAT_WRITE_FORBIDDEN", FailureReason.RIGHTS),
    (400, "Bad Request: TOPIC_CLOSED", FailureReason.RIGHTS),
    (400, "Bad Request: message thread not found", FailureReason.RIGHTS),
    (400, "Bad Request: message is too long", FailureReason.CONTENT),
    (400, "Bad Request: message text is empty", FailureReason.CONTENT),
    (400, 'Bad Request: can\'t parse entities: Unsupported start tag "x" at byte offset 0', FailureReason.CONTENT),
    (400, "Bad Request: message caption is too long", FailureReason.CONTENT),
    (400, "Bad Request: caption is too long", FailureReason.CONTENT),
    (400, "Bad Request: BUTTON_URL_INVALID", FailureReason.CONTENT),
    (400, "Bad Request: reply markup is too long", FailureReason.CONTENT),
    (400, "Bad Request: wrong file identifier/HTTP URL specified", FailureReason.CONTENT),
    (400, "Bad Request: file is too big", FailureReason.CONTENT),
    (400, "Bad Request: PHOTO_INVALID_DIMENSIONS", FailureReason.CONTENT),
    (400, "Bad Request: query is too old and response timeout expired or query ID is invalid", FailureReason.LATE),
    (400, "Bad Request: message to edit not found", FailureReason.CONTENT),
    (400, "Bad Request: message to delete not found", FailureReason.CONTENT),
    (400, "Bad Request: message to forward not found", FailureReason.CONTENT),
    (400, "Bad Request: message to copy not found", FailureReason.CONTENT),
    (400, "Bad Request: message to be replied not found", FailureReason.CONTENT),
    (400, "Bad Request: message can't be edited", FailureReason.CONTENT),
    (400, "Bad Request: message can't be deleted for everyone", FailureReason.CONTENT),
    (400, "Bad Request: a text that nobody has seen yet", FailureReason.CONTENT),
    (404, "Not Found: method not found", FailureReason.METHOD),
    (413, "Request Entity Too Large", FailureReason.CONTENT),
    (418, "I'm a teapot", FailureReason.REFUSED),
]


@pytest.mark.parametrize(("status", "description", "reason"), PERMANENT)
def test_a_permanent_refusal_is_dead_with_its_reason_and_telegrams_words(
    status: int, description: str, reason: FailureReason
) -> None:
    assert classify(Refusal(status, description), SEND) == dead(reason, description, status)


@pytest.mark.parametrize(
    ("refusal", "outcome"),
    [
        (
            Refusal(429, "Too Many Requests: retry after 7", retry_after=timedelta(seconds=7)),
            Paused(timedelta(seconds=7), "Too Many Requests: retry after 7"),
        ),
        (
            Refusal(429, "Too Many Requests: retry after 7"),
            Paused(timedelta(seconds=7), "Too Many Requests: retry after 7"),
        ),
        (
            Refusal(429, "HTTP 429 Too Many Requests", from_bot_api=False),
            Paused(DEFAULT_RETRY_AFTER, "HTTP 429 Too Many Requests"),
        ),
        (
            Refusal(400, "Bad Request: flood control, retry after 12"),
            Paused(timedelta(seconds=12), "Bad Request: flood control, retry after 12"),
        ),
        (
            Refusal(400, "Bad Request: group chat was upgraded to a supergroup chat", migrate_to="-1001234567890"),
            Migrated("-1001234567890"),
        ),
        (Refusal(401, "Unauthorized"), BotRefused("Unauthorized")),
        (Refusal(404, "HTTP 404 Not Found", from_bot_api=False), BotRefused("HTTP 404 Not Found")),
        (
            Refusal(400, "Bad Request: message is not modified: specified new message content is the same"),
            NothingToDo("Bad Request: message is not modified: specified new message content is the same", 400),
        ),
        (
            Refusal(409, "Conflict: terminated by other getUpdates request"),
            Retry("Conflict: terminated by other getUpdates request", surely_not_sent=True),
        ),
        (
            Refusal(302, "HTTP 302 Found", from_bot_api=False),
            Retry("HTTP 302 Found", surely_not_sent=True),
        ),
        (
            Refusal(403, "HTTP 403 Forbidden", from_bot_api=False),
            Retry("HTTP 403 Forbidden", surely_not_sent=True),
        ),
    ],
)
def test_other_refusals_have_the_outcomes_in_the_table(refusal: Refusal, outcome: Outcome) -> None:
    assert classify(refusal, SEND) == outcome


@pytest.mark.parametrize(
    "description", ["Bad Request: failed to get HTTP URL content", "Bad Request: wrong type of the web page content"]
)
def test_a_url_that_telegram_cannot_fetch_is_retried_a_few_times(description: str) -> None:
    assert classify(Refusal(400, description), CallFacts("sendPhoto")) == Retry(description, False, at_most=3)


def test_a_partial_album_is_uncertain_even_if_its_text_asks_for_a_wait() -> None:
    text = 'Bad Request: failed to send message #3 with the error message "Too Many Requests: retry after 9"'
    assert classify(Refusal(400, text), CallFacts("sendMediaGroup")) == Uncertain(
        text, timedelta(seconds=9), partly=True
    )
    assert classify(Refusal(400, "Bad Request: group send failed"), CallFacts("sendMediaGroup")) == Uncertain(
        "Bad Request: group send failed", partly=True
    )


@pytest.mark.parametrize("status", [500, 502, 503, 504, 520])
def test_a_server_error_is_uncertain_for_a_send_and_retried_for_an_edit(status: int) -> None:
    refusal = Refusal(status, f"HTTP {status}", from_bot_api=False)
    assert classify(refusal, SEND) == Uncertain(f"HTTP {status}")
    assert classify(refusal, EDIT) == Retry(f"HTTP {status}", surely_not_sent=False)


def test_a_call_that_was_never_sent_is_retried_and_not_charged() -> None:
    answer = Break("not sent: ClientConnectorError", surely_not_sent=True)
    assert classify(answer, SEND) == Retry("not sent: ClientConnectorError", surely_not_sent=True)


def test_a_broken_call_is_uncertain_for_a_send_and_retried_for_a_deletion() -> None:
    answer = Break("cut off", surely_not_sent=False)
    assert classify(answer, SEND) == Uncertain("cut off")
    assert classify(answer, CallFacts("deleteMessage")) == Retry("cut off", surely_not_sent=False)
    assert classify(answer, CallFacts("sendGift")) == Uncertain("cut off")


def test_a_repeated_deletion_that_finds_nothing_was_made_by_the_previous_call() -> None:
    gone = Refusal(400, "Bad Request: message to delete not found")
    assert classify(gone, CallFacts("deleteMessage", repeated=True)) == NothingToDo(gone.description)
    assert isinstance(classify(gone, CallFacts("deleteMessage")), Dead)


def test_a_repeated_edit_that_changes_nothing_was_made_by_the_previous_call_and_succeeds() -> None:
    same = Refusal(400, "Bad Request: message is not modified")
    assert classify(same, CallFacts("editMessageText", repeated=True)) == NothingToDo(same.description)
    assert classify(same, CallFacts("editMessageText")) == NothingToDo(same.description, 400)


def test_an_accepted_call_is_sent_with_telegrams_result() -> None:
    assert classify(Accepted({"message_id": 5}), SEND) == Sent({"message_id": 5})


def test_a_job_whose_calls_were_never_sent_is_not_a_repetition() -> None:
    job = new_job("deleteMessage", {"chat_id": 1, "message_id": 2})
    assert call_of(job.model_copy(update={"attempts": 2, "unsent": 2})) == CallFacts("deleteMessage", repeated=False)
    assert call_of(job.model_copy(update={"attempts": 2, "unsent": 1})) == CallFacts("deleteMessage", repeated=True)
