"""Answers to queries have their own queue and expire after some seconds."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from floodgate.broker.amqp import delay_ladder, topology
from floodgate.broker.amqp.consumer import ANSWERS_PREFETCH, MOST_PREFETCHED, PREFETCH
from floodgate.broker.errors import InvalidParamsError
from floodgate.broker.messages import queue_names
from floodgate.broker.messages.job import Job, Priority, unix_ms
from floodgate.broker.messages.method_table import METHODS, Charge
from floodgate.broker.settings.model import Settings
from floodgate.broker.worker.queue_consumer import prefetch_of
from floodgate.producer.core import Composer

QUEUE = "send.default.answers"
ANSWERS = [name for name, method in METHODS.items() if method.charge is Charge.ANSWER]


def composer() -> Composer:
    return Composer(Settings(_env_file=None, partitions=4))


def answer(method: str = "answerCallbackQuery", **given: Any) -> Job:
    return composer().unchecked(method, {"callback_query_id": "1"}, given)


def seconds_to_live(job: Job) -> float:
    assert job.expires_ms is not None
    return (job.expires_ms - (job.not_before_ms or job.created_ms)) / 1000


@pytest.mark.parametrize("method", ANSWERS)
@pytest.mark.parametrize("priority", Priority)
def test_an_answer_goes_to_its_bots_queue_of_answers_with_any_priority(method: str, priority: Priority) -> None:
    publication = composer().publication(answer(method, priority=priority))
    assert (publication.exchange, publication.routing_key) == ("", QUEUE)
    assert json.loads(publication.body)["queue_name"] == QUEUE


@pytest.mark.parametrize("method", ["sendMessage", "sendChatAction", "getMe", "savePreparedInlineMessage"])
def test_other_jobs_go_to_their_partition(method: str) -> None:
    job = answer(method)
    assert composer().publication(job).routing_key == queue_names.send_queue("default", "interactive", job.partition(4))


def test_a_scheduled_answer_reaches_its_bots_queue_of_answers() -> None:
    publication = composer().publication(answer(delay=60))
    assert publication.routing_key == delay_ladder.routing_key(QUEUE, 480)


@pytest.mark.parametrize(
    ("method", "seconds"),
    [
        ("answerCallbackQuery", 15),
        ("answerWebAppQuery", 15),
        ("answerGuestQuery", 15),
        ("answerInlineQuery", 10),
        ("answerPreCheckoutQuery", 10),
        ("answerShippingQuery", 10),
        ("ANSWERcallbackQUERY", 15),
    ],
)
def test_an_answer_expires_together_with_its_query(method: str, seconds: int) -> None:
    assert seconds_to_live(answer(method)) == seconds
    assert seconds_to_live(answer(method, delay=60)) == seconds, "from when it may be sent"


def test_an_explicit_expiry_takes_precedence() -> None:
    assert seconds_to_live(answer(expires=timedelta(minutes=1))) == 60
    with pytest.raises(InvalidParamsError, match="earliest time to send"):
        answer(expires=5, delay=10)


def test_other_jobs_have_no_default_expiry() -> None:
    assert composer().job("sendMessage", {"chat_id": 1, "text": "hi"}).expires_ms is None


def test_the_expiry_of_an_answer_counts_from_its_creation() -> None:
    before = unix_ms()
    made = answer()
    assert made.expires_ms is not None
    assert before + 15_000 <= made.expires_ms <= unix_ms() + 15_000


def test_answers_are_consumed_concurrently_and_sends_one_by_one() -> None:
    assert (prefetch_of(QUEUE), prefetch_of(queue_names.send_queue("answers", "bulk", 0))) == (
        ANSWERS_PREFETCH,
        PREFETCH,
    )
    assert PREFETCH == 1 < ANSWERS_PREFETCH <= MOST_PREFETCHED


@pytest.mark.parametrize(
    "name", ["send.answers", "answers", "send.a.b.answers", "send.a.answers.00", "updates.a.answers"]
)
def test_other_queues_are_not_mistaken_for_queues_of_answers(name: str) -> None:
    assert not queue_names.is_answers_queue(name)


def test_a_bots_answers_use_its_dead_letters_and_have_one_consumer() -> None:
    [queue] = [each for each in topology.of_queues([QUEUE], Settings(_env_file=None)).queues if each.name == QUEUE]
    assert queue == topology.Queue(QUEUE, topology.Role.SEND, dead_letters="dead.default")
    assert QUEUE not in {each.name for each in topology.pipeline(["default"], 0, update_partitions=1).queues}
