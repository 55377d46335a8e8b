"""Settling a delivery after Dramatiq has finished with it: the order of the steps, and the effect of a failed one."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import dramatiq
import pytest

from floodgate.broker.errors import RejectedError
from floodgate.broker.messages.dead_letters import MAX_DESCRIPTION, dead_message, read_dead_letter
from floodgate.broker.messages.publication import Publication
from floodgate.broker.process.stopping import Stopping
from floodgate.broker.worker.queue_consumer import GIVE_BACK_PAUSE_SECONDS, QueueConsumer, read_message

MAIL = dramatiq.Message(queue_name="mail", actor_name="nobody", args=(), kwargs={}, options={}).encode()


class Desk:
    """Replaces the publisher, the delivery and the stopping worker; records all calls."""

    def __init__(self, body: bytes = MAIL) -> None:
        self.steps: list[str] = []
        self.letters: list[Publication] = []
        self.fault: RejectedError | None = None
        self.delivery: Any = SimpleNamespace(
            body=body,
            message_id="m1",
            queue="mail",
            trace=None,
            ack=self._noting("ack"),
            requeue=self._noting("requeue"),
        )

    def consumer(self) -> QueueConsumer:
        stopping: Any = SimpleNamespace(wait=lambda seconds: self.steps.append(f"pause {seconds:g}"))
        publisher: Any = self
        return QueueConsumer("mail", self._subscribe, publisher, 0.01, stopping)

    def publish(self, letter: Publication) -> None:
        self.steps.append("publish")
        if self.fault is not None:
            raise self.fault
        self.letters.append(letter)

    def _subscribe(self, on_delivery: Any) -> Any:
        on_delivery(self.delivery)
        return SimpleNamespace()

    def _noting(self, step: str) -> Any:
        return lambda: self.steps.append(step)


PAUSE = f"pause {GIVE_BACK_PAUSE_SECONDS:g}"
REJECTED = RejectedError("RabbitMQ said no.")


def test_a_failed_message_is_dead_lettered_before_it_is_acknowledged() -> None:
    desk = Desk()
    consumer = desk.consumer()
    message = next(consumer)
    assert message is not None
    consumer.nack(message)
    assert desk.steps == ["publish", "ack"]
    assert (desk.letters[0].routing_key, desk.letters[0].body) == ("dead.mail", MAIL)


def test_bytes_that_are_not_a_job_are_dead_lettered_before_they_are_acknowledged() -> None:
    desk = Desk(b"\xff no job")
    assert next(desk.consumer()) is None
    assert desk.steps == ["publish", "ack"]
    assert (desk.letters[0].routing_key, desk.letters[0].body) == ("dead.malformed", b"\xff no job")


@pytest.mark.parametrize("body", [MAIL, b"\xff no job"], ids=["a message", "no job"])
def test_a_message_that_cannot_be_dead_lettered_is_requeued_after_a_pause_and_not_acknowledged(body: bytes) -> None:
    desk = Desk(body)
    desk.fault = REJECTED
    consumer = desk.consumer()
    if message := next(consumer):
        consumer.nack(message)
    assert desk.steps == ["publish", PAUSE, "requeue"]


def test_an_unfinished_message_is_requeued_after_a_pause() -> None:
    desk = Desk()
    consumer = desk.consumer()
    message = next(consumer)
    assert message is not None
    message.give_back()
    consumer.ack(message)
    assert desk.steps == [PAUSE, "requeue"]


def test_a_message_has_the_name_of_the_queue_it_came_from() -> None:
    moved: Any = SimpleNamespace(body=MAIL, message_id="m1")
    assert read_message(moved, "post").queue_name == "post"


@pytest.mark.parametrize("wrong", [{"kwargs": []}, {"options": []}, {"actor_name": 1}, {"message_id": 1}], ids=str)
def test_fields_of_the_wrong_type_make_a_message_malformed(wrong: dict[str, object]) -> None:
    desk = Desk(json.dumps({**json.loads(MAIL), **wrong}).encode())
    assert next(desk.consumer()) is None
    assert desk.letters[0].routing_key == "dead.malformed"


def test_the_pause_ends_when_the_worker_is_stopping() -> None:
    desk, stopping = Desk(), Stopping()
    stopping.set()
    publisher: Any = desk
    consumer = QueueConsumer("mail", desk._subscribe, publisher, 0.01, stopping)
    message = read_message(desk.delivery, "mail")
    message.give_back()
    consumer.ack(message)
    assert desk.steps == ["requeue"]


def test_the_description_of_a_dead_letter_is_truncated() -> None:
    letter = dead_message("dead.mail", "m1", b"", "mail", "failed", "x" * 10_000)
    assert read_dead_letter("dead.mail", "m1", letter.headers, b"").description == "x" * MAX_DESCRIPTION
