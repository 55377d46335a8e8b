"""Messages accepted as jobs of a queue, and those that go to `dead.malformed` instead of returning forever."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from floodgate.broker.amqp.frames import FrameOptions, encode
from floodgate.broker.errors import MalformedJobError
from floodgate.broker.messages import dead_letters
from floodgate.broker.messages.job import encode_job, new_job
from floodgate.broker.worker.queue_consumer import read_message

QUEUE = "send.news.bulk.03"


def body(**changes: Any) -> bytes:
    message: dict[str, Any] = json.loads(
        encode_job(new_job("sendMessage", {"chat_id": 5, "text": "x"}, bot="news"), QUEUE)
    )
    job_changes = changes.pop("job", {})
    message["kwargs"]["job"].update(job_changes)
    return json.dumps(message | changes).encode()


def read(content: bytes) -> Any:
    delivery: Any = SimpleNamespace(body=content)
    return read_message(delivery, QUEUE)


def test_a_job_of_the_queues_bot_is_read() -> None:
    assert read(body()).job.bot == "news"


@pytest.mark.parametrize(
    "content",
    [
        body(args=[1]),
        body(kwargs={}),
        body(kwargs={"job": {}, "more": 1}),
        body(job={"method": "no_such_method"}),
        body(job={"method": "getUpdates"}),
        body(job={"chat": "@"}),
        body(job={"chat": "x" * 5000}),
        body(job={"chat": "0"}),
        body(job={"bot": "other"}),
        body(job={"bot": "new"}),
        body(actor_name="\ud800"),
        body(job={"params": {"chat_id": 5, "text": "half a pair: \udc00"}}),
        body(actor_name="none", message_id="x" * 256),
    ],
    ids=lambda content: content[-60:].decode(),
)
def test_bytes_the_pipeline_cannot_process_are_malformed(content: bytes) -> None:
    with pytest.raises(MalformedJobError):
        read(content)


@pytest.mark.parametrize("chat_id", [5, -5, -1001234567890, 2**52 - 1, -(2**52) + 1, "@Durov_2", "17"])
def test_every_chat_key_we_make_can_be_read(chat_id: int | str) -> None:
    made = new_job("sendMessage", {"chat_id": chat_id, "text": "x"}, bot="news")
    assert read(encode_job(made, QUEUE)).job.chat == made.chat


def test_a_complete_surrogate_pair_is_ordinary_text() -> None:
    assert read(body(job={"params": {"chat_id": 5, "text": "😀"}})).job.params["text"] == "😀"


def test_a_dead_letter_can_be_written_with_any_description() -> None:
    letter = dead_letters.malformed("id", b"bytes", QUEUE, "\ud800" + "ü" * 1000)
    assert encode(letter, FrameOptions(channel=1, frame_max=131_072))


def test_each_inline_message_is_a_separate_chat() -> None:
    made = new_job("editMessageText", {"inline_message_id": "BQAAAHQCAAB_-9", "text": "x"}, bot="news")
    assert read(encode_job(made, QUEUE)).job.chat == "inline:BQAAAHQCAAB_-9"
