"""Edits that wait while the bot's own limit is used up: most are superseded in RabbitMQ, and cost no call."""

from __future__ import annotations

from contextlib import closing

import pytest

from floodgate.broker.admission.contract import SUPERSEDED
from floodgate.broker.state.stores import open_store
from tests.acceptance.stage import BOT, Stage
from tests.waiting import until

CHATS = range(101, 121)
EDITS = 25
BOT_PER_SECOND = 10  # fewer than the chats, so the bot's limit is the one that is used up


@pytest.fixture(params=["sqlite", "redis"])
def store_url(request: pytest.FixtureRequest) -> dict[str, str]:
    return {} if request.param == "sqlite" else {"FLOODGATE_STATE_URL": request.getfixturevalue("redis_url")}


def test_while_the_bot_is_busy_each_message_gets_a_few_of_its_edits_and_the_last(
    stage: Stage, store_url: dict[str, str]
) -> None:
    stage.extra.update({**store_url, "FLOODGATE_LIMITS__BOT_PER_SECOND": str(BOT_PER_SECOND)})
    stage.worker()
    client = stage.client()
    sent = [client.send_message(chat, "…", priority="bulk") for chat in CHATS]
    shown = dict(zip(CHATS, (client.result(job, timeout=60)["message_id"] for job in sent), strict=True))
    edits = [
        client.job("editMessageText", chat_id=chat, message_id=shown[chat], text=str(number), coalesce="answer")
        for number in range(1, EDITS + 1)
        for chat in CHATS
    ]
    assert client.enqueue_many(edits) == len(edits)
    results = [client.result(job, timeout=60) for job in edits[-len(CHATS) :]]
    assert [result["text"] for result in results] == [str(EDITS)] * len(CHATS)
    calls = [call for call in stage.control.arrivals() if call.method == "editMessageText"]
    assert len(calls) <= 4 * len(CHATS), "unless they were superseded in RabbitMQ, most of them would be sent"
    with closing(open_store(stage.settings)) as store:
        until(lambda: store.snapshot(BOT).not_kept.get(SUPERSEDED) == len(edits) - len(calls), 30)
