"""SIGTERM: calls in flight are finished, other jobs handed back in order, exit code 0, in bounded time."""

from __future__ import annotations

import signal
import time

import pytest

from floodgate.broker.amqp import queue_admin, topology
from floodgate.broker.amqp.connections import Connections
from floodgate.broker.process.forced_exit import EXIT_FORCED
from tests.acceptance.stage import BOT, Stage
from tests.waiting import until

IDLE_SECONDS = 3.0
# Dramatiq's thread loop, closing connections and the interpreter's end, in addition to the call in flight.
ENDING_SECONDS = 4.0
LATENCY_MS = 2000.0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_an_idle_worker_exits_at_once_with_0(stage: Stage, number: signal.Signals) -> None:
    worker = stage.worker()
    asked = time.monotonic()
    worker.signal(number)
    assert worker.wait(10) == 0
    assert time.monotonic() - asked <= IDLE_SECONDS
    assert "Traceback" not in worker.log


def test_a_call_in_flight_is_finished_and_recorded_before_the_worker_ends(stage: Stage) -> None:
    stage.control.set_server(latency_ms=(LATENCY_MS, LATENCY_MS))
    worker = stage.worker()
    client = stage.client()
    job = client.send_message(chat_id=42, text="in flight")
    until(lambda: stage.control.stats().unanswered == 1)
    asked = time.monotonic()
    worker.signal()
    assert worker.wait(15) == 0
    assert time.monotonic() - asked <= LATENCY_MS / 1000 + ENDING_SECONDS
    assert client.result(job, timeout=0)["text"] == "in flight", "Telegram's answer was waited for and kept"


def test_jobs_a_stopped_worker_had_not_begun_are_sent_by_the_next_once_and_in_order(stage: Stage) -> None:
    stage.control.set_server(latency_ms=(LATENCY_MS, LATENCY_MS))
    worker = stage.worker()
    client = stage.client()
    texts = [f"{user}: {n}" for n in range(3) for user in range(4)]
    client.enqueue_many(client.job("sendMessage", chat_id=100 + int(text[0]), text=text) for text in texts)
    until(lambda: stage.control.stats().unanswered >= 1)
    worker.signal()
    assert worker.wait(15) == 0
    assert len(stage.sent()) < len(texts), "else there was nothing to hand back"

    stage.control.set_server(latency_ms=(0, 0))
    stage.worker()
    until(lambda: stage.control.stats().acted >= len(texts), 30)
    arrived = stage.sent()
    assert sorted(arrived) == sorted(texts), "all of them, each once"
    for user in range(4):
        mine = [text for text in arrived if text.startswith(f"{user}:")]
        assert mine == sorted(mine)


def test_a_worker_waiting_for_a_paused_bot_hands_its_job_back_at_once(stage: Stage) -> None:
    stage.control.pause(100200300, 20)
    worker = stage.worker()
    client = stage.client()
    client.enqueue_many(client.job("sendMessage", chat_id=100 + n, text=str(n), priority="bulk") for n in range(20))
    until(lambda: stage.control.stats().by_code.get(429, 0) >= 1)
    asked = time.monotonic()
    worker.signal()
    assert worker.wait(15) == 0
    assert time.monotonic() - asked <= IDLE_SECONDS + 1
    with Connections(stage.settings, "test") as connections:
        until(lambda: ready(stage, connections) + len(stage.sent()) == 20)


def ready(stage: Stage, connections: Connections) -> int:
    """Counts messages in all queues including the ladder's."""
    queues = [queue.name for queue in topology.pipeline_of(stage.settings, [BOT]).queues]
    return sum(depth or 0 for depth in queue_admin.depth(connections, queues).values())


def test_a_second_signal_ends_a_worker_at_once_and_its_job_is_requeued(stage: Stage) -> None:
    stage.control.set_server(latency_ms=(20_000, 20_000))
    worker = stage.worker()
    stage.client().send_message(chat_id=42, text="in flight")
    until(lambda: stage.control.stats().unanswered == 1)
    worker.signal()
    until(lambda: "stopping" in worker.log)
    asked = time.monotonic()
    worker.signal()
    assert worker.wait(5) == EXIT_FORCED
    assert time.monotonic() - asked <= 1
    with Connections(stage.settings, "test") as connections:
        until(lambda: ready(stage, connections) == 1)


def test_a_call_that_exceeds_the_limit_does_not_delay_shutdown(stage: Stage) -> None:
    stage.control.set_server(latency_ms=(60_000, 60_000))
    worker = stage.worker(FLOODGATE_CALL_TIMEOUT_SECONDS="3", FLOODGATE_SHUTDOWN_SECONDS="4")
    stage.client().send_message(chat_id=42, text="in flight")
    until(lambda: stage.control.stats().unanswered == 1)
    asked = time.monotonic()
    worker.signal()
    assert worker.wait(20) == 0
    assert time.monotonic() - asked <= 4 + ENDING_SECONDS
