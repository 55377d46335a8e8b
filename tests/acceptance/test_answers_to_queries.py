"""Answers to queries expire within seconds: on real processes they wait for nothing."""

from __future__ import annotations

from typing import Final

from floodgate.broker.amqp import queue_admin
from floodgate.broker.amqp.connections import Connections
from floodgate.broker.messages import queue_names
from floodgate.fake_telegram.control import Arrived
from tests.acceptance.stage import BOT, FEW_PARTITIONS, Stage
from tests.waiting import until

CHATS: Final = range(1, 41)
PRE_CHECKOUT: Final = "answerPreCheckoutQuery"
LATENCY_SECONDS: Final = 0.5
ANSWERS: Final = 20
AT_ONCE: Final = 16


def arrivals(stage: Stage, method: str) -> list[Arrived]:
    return [call for call in stage.control.arrivals() if call.method == method]


def test_an_answer_is_sent_despite_a_paused_bot_and_full_queues(stage: Stage) -> None:
    client = stage.client()
    assert stage.floodgate("pause", "--for", "15m").returncode == 0
    client.enqueue_many(client.job("sendMessage", chat_id=chat, text="waits") for chat in CHATS)
    stage.worker()
    queues = [queue_names.send_queue(BOT, "interactive", n) for n in range(FEW_PARTITIONS)]
    with Connections(stage.settings, "test") as connections:
        # Each partition has parked its job in hand and hands its queue back until the pause ends.
        until(lambda: sum(depth or 0 for depth in queue_admin.depth(connections, queues).values()) == len(CHATS) - 2)
        client.call("answerCallbackQuery", callback_query_id="1")
        until(lambda: arrivals(stage, "answerCallbackQuery"), 2)
    assert arrivals(stage, "sendMessage") == []


def test_an_answer_does_not_wait_for_its_bots_budget(stage: Stage) -> None:
    client = stage.client()
    stage.worker()
    client.enqueue_many(client.job("sendMessage", chat_id=chat, text="waits") for chat in range(1, 151))
    until(lambda: len(arrivals(stage, "sendMessage")) >= 30)
    client.call("answerCallbackQuery", callback_query_id="1")
    until(lambda: arrivals(stage, "answerCallbackQuery"), 2)
    assert len(arrivals(stage, "sendMessage")) < 150, "sends wait"


def test_slow_answers_are_made_concurrently(stage: Stage) -> None:
    stage.control.set_server(latency_ms=(LATENCY_SECONDS * 1000,) * 2)
    client = stage.client()
    stage.worker()
    client.enqueue_many(client.job(PRE_CHECKOUT, pre_checkout_query_id=str(n), ok=True) for n in range(ANSWERS))
    until(lambda: len(arrivals(stage, PRE_CHECKOUT)) == ANSWERS, ANSWERS * LATENCY_SECONDS / 2)
    times = sorted(call.at for call in arrivals(stage, PRE_CHECKOUT))
    assert sum(at - times[0] < LATENCY_SECONDS for at in times) == AT_ONCE
    assert times[-1] - times[0] < 2 * LATENCY_SECONDS
