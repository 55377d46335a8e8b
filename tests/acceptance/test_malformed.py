"""Bytes in a queue that are not a job go unchanged to `dead.malformed`, and the worker continues."""

from __future__ import annotations

import json
from typing import Any

import pika
import pytest

from floodgate.broker.messages import dead_letters, queue_names
from floodgate.broker.messages.job import encode_job, new_job
from tests.acceptance.stage import BOT, Stage
from tests.draining import drain
from tests.services import Vhost
from tests.waiting import until

QUEUE = queue_names.send_queue(BOT, "interactive", 0)


def message(**changes: Any) -> bytes:
    """A Dramatiq message for `send` with a valid job, with the changes applied."""
    job = new_job("sendMessage", {"chat_id": 42, "text": "hi"})
    return json.dumps(json.loads(encode_job(job, QUEUE)) | changes).encode()


def with_job(**changes: Any) -> bytes:
    fields = json.loads(message())["kwargs"]["job"]
    return message(kwargs={"job": fields | changes})


MALFORMED = {
    "no UTF-8": b"\xff\xfe\x00\x80 not text",
    "empty": b"",
    "no JSON": b"{'queue_name': ",
    "JSON of another shape": b"[1, 2, 3]",
    "a JSON string": b'"send"',
    "a number": b"17",
    "null": b"null",
    "deep nesting": b"[" * 200_000,
    "deep nesting in a job": message().replace(b'"hi"', b"[" * 50_000 + b"]" * 50_000),
    "a huge integer": message().replace(b'"chat_id": 42', b'"chat_id": ' + b"9" * 10_000),
    "no kwargs": message(kwargs=None),
    "kwargs that are a list": message(kwargs=["job"]),
    "options that are text": message(options="none"),
    "an actor that is a number": message(actor_name=7),
    "an id that is a list": message(message_id=["a"]),
    "no job": message(kwargs={}),
    "a job that is text": message(kwargs={"job": "sendMessage"}),
    "a job of version 2": with_job(v=2),
    "a job without a method": with_job(method=None),
    "a job with params that are a list": with_job(params=[1]),
    "a job of cost 0": with_job(cost=0),
    "a job of an unknown priority": with_job(priority="urgent"),
    "fields of Dramatiq's missing": b"{}",
    "unknown fields beside them": message(surprise=1),
}


@pytest.fixture
def put(stage: Stage, vhost: Vhost) -> Any:
    """Publishes bytes to the partition with stock pika, as a foreign publisher would."""
    assert stage.floodgate("topology", "apply").returncode == 0
    with pika.BlockingConnection(pika.URLParameters(vhost.url)) as connection:
        channel = connection.channel()
        yield lambda body: channel.basic_publish("", QUEUE, body, pika.BasicProperties(delivery_mode=2))


def test_bytes_that_are_not_a_job_go_unchanged_to_dead_malformed_and_the_worker_continues(
    stage: Stage, vhost: Vhost, put: Any
) -> None:
    for body in MALFORMED.values():
        put(body)
    put(message())
    worker = stage.worker()
    until(lambda: stage.sent() == ["hi"], 30)
    assert worker.stop() == 0
    assert "Traceback" not in worker.log

    dead = drain(vhost.url, queue_names.MALFORMED_QUEUE)
    kept = {name for name, body in MALFORMED.items() if body in [found for _, found in dead]}
    assert kept == set(MALFORMED)
    assert {properties.headers[dead_letters.REASON] for properties, _ in dead} == {dead_letters.REASON_MALFORMED}
    assert {properties.headers[dead_letters.QUEUE] for properties, _ in dead} == {QUEUE}
    assert all(properties.headers[dead_letters.DESCRIPTION] for properties, _ in dead)


def test_a_message_for_an_unknown_actor_becomes_a_dead_letter_of_the_bot_with_that_reason(
    stage: Stage, vhost: Vhost, put: Any
) -> None:
    stranger = message(actor_name="resize_image", kwargs={"path": "cat.png"})
    put(stranger)
    put(message())
    worker = stage.worker()
    until(lambda: stage.sent() == ["hi"], 30)
    assert worker.stop() == 0
    [(properties, body)] = drain(vhost.url, queue_names.dead_queue(BOT))
    assert body == stranger
    assert properties.headers[dead_letters.REASON] == dead_letters.REASON_NO_ACTOR


def test_an_eta_that_dramatiq_would_hold_in_memory_is_not_waited_for(stage: Stage, put: Any) -> None:
    put(message(options={"eta": 4_102_444_800_000}))
    stage.worker()
    until(lambda: stage.sent() == ["hi"], 30)


def test_dead_letters_with_any_bytes_are_listed(stage: Stage, put: Any) -> None:
    put(MALFORMED["no UTF-8"])
    put(MALFORMED["a job of version 2"])
    put(MALFORMED["deep nesting"])
    stage.worker()

    def listed() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(stage.floodgate("dead-letters", "list", "--json").stdout)
        return found if len(found) == 3 else []

    assert {letter["reason"] for letter in until(listed, 30)} == {"malformed"}
    table = stage.floodgate("dead-letters", "list")
    assert table.returncode == 0
    assert "malformed: 3" in table.stdout
