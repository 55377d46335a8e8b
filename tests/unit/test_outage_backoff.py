"""Errors are logged once, in one sentence, and waited for."""

from __future__ import annotations

import logging
import re

import pytest

from floodgate.broker.errors import RabbitMQUnreachableError
from floodgate.producer.updates.outage_backoff import LONGEST_PAUSE_SECONDS, OutageBackoff, sentence
from floodgate.producer.updates.telegram import NoAnswerError, ReceivingRefusedError

CONFLICT = ReceivingRefusedError(
    "getUpdates", 409, "Conflict: terminated by other getUpdates request; make sure …", None
)


def test_an_unchanged_outage_is_logged_once_and_so_is_its_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "floodgate.updates")
    outage = OutageBackoff("news")
    for _ in range(20):
        outage.failed(NoAnswerError("Telegram cannot be reached for getUpdates (Connection refused)."))
    outage.recovered()
    outage.recovered()
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert said[0] == (
        "Bot news: Telegram cannot be reached for getUpdates (Connection refused). Retrying until it works."
    )
    assert "arrive again" in said[1]


def test_a_different_error_is_logged_at_once(caplog: pytest.LogCaptureFixture) -> None:
    outage = OutageBackoff("news")
    outage.failed(NoAnswerError("Telegram cannot be reached for getUpdates (Connection refused)."))
    outage.failed(RabbitMQUnreachableError("RabbitMQ is away."))
    assert len(caplog.records) == 2


def test_pauses_double_up_to_a_limit_unless_telegram_names_one() -> None:
    outage = OutageBackoff("news")
    pauses = [outage.failed(NoAnswerError("away.")) for _ in range(12)]
    assert pauses[0] <= 0.5
    assert LONGEST_PAUSE_SECONDS / 2 <= pauses[-1] <= LONGEST_PAUSE_SECONDS
    assert outage.failed(ReceivingRefusedError("getUpdates", 429, "Too Many Requests: retry after 7", 7.0)) == 7.0


def test_a_conflict_during_a_handover_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    outage = OutageBackoff("news")
    outage.failed(CONFLICT)
    outage.recovered()
    assert not caplog.records


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ReceivingRefusedError("getUpdates", 401, "Unauthorized", None), "does not know its token .* FLOODGATE_BOTS"),
        (ReceivingRefusedError("getUpdates", 404, "Not Found", None), "does not know its token"),
        (CONFLICT, "another program polls with its token"),
        (
            ReceivingRefusedError("setWebhook", 400, "Bad Request: bad webhook", None),
            "refuses setWebhook: 400 Bad Request",
        ),
    ],
)
def test_a_refusal_is_logged_in_one_sentence_with_a_remedy(error: ReceivingRefusedError, words: str) -> None:
    assert re.search(words, sentence("news", error))
