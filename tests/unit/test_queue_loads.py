"""The loads of queues, as RabbitMQ reports them: 0 of everything may mean that a queue's leader was slow to answer."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from floodgate.broker.amqp.queue_admin import QueueLoad, aloads


class Replies:
    """Connections to a server that gives these answers about a queue, one after the other: messages, consumers."""

    def __init__(self, *answers: tuple[int, int]) -> None:
        self.answers = list(answers)

    async def arun(self, task: Any, _seconds: float) -> Any:
        return await task(self)

    async def channel(self) -> Replies:
        return self

    async def call(self, _method: str, *, queue: str, passive: bool) -> Any:
        messages, consumers = self.answers.pop(0)
        return SimpleNamespace(method=SimpleNamespace(message_count=messages, consumer_count=consumers))


def load_after(*answers: tuple[int, int]) -> QueueLoad | None:
    replies = Replies(*answers)
    loads = asyncio.run(aloads(cast("Any", replies), ["q"]))
    assert replies.answers == []
    return loads["q"]


def test_a_queue_that_seems_empty_is_asked_about_twice() -> None:
    assert load_after((0, 0), (3, 1)) == QueueLoad(3, 1)
    assert load_after((0, 0), (0, 0)) == QueueLoad(0, 0)


def test_any_other_queue_is_asked_about_once() -> None:
    assert load_after((3, 0)) == QueueLoad(3, 0)
    assert load_after((0, 1)) == QueueLoad(0, 1)
