"""The double that ships: it must be no more lenient than the real clients, and no less."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Iterator

import pytest

from broker.admission.contract import Record, Standing
from broker.errors import (
    BlockedError,
    ClosedError,
    DeadLetteredError,
    EnqueueManyError,
    InvalidParamsError,
    NotSettledError,
    UnknownMethodError,
)
from broker.job import Job
from floodgate.testing import AsyncRecordingClient, RecordingClient
from producer.async_client import AsyncClient
from producer.client import Client

pytest_plugins = ["floodgate.pytest_plugin"]

BLOCKED = BlockedError("RabbitMQ has an alarm.")


def public(client: type) -> dict[str, list[str]]:
    return {
        name: list(inspect.signature(method).parameters)
        for name, method in inspect.getmembers(client, inspect.isfunction)
        if not name.startswith("_")
    }


@pytest.mark.parametrize(("real", "double"), [(Client, RecordingClient), (AsyncClient, AsyncRecordingClient)])
def test_the_double_has_every_method_of_the_real_one(real: type, double: type) -> None:
    assert public(real).items() <= public(double).items()
    assert list(inspect.signature(real).parameters) == list(inspect.signature(double).parameters)


def test_it_keeps_jobs_in_order_and_by_chat(floodgate_client: RecordingClient) -> None:
    first = floodgate_client.send_message(42, "one", priority="bulk")
    second = floodgate_client.send_message("@News", "two")
    assert floodgate_client.jobs == [first, second]
    assert (floodgate_client.sent_to(42), floodgate_client.sent_to("@news")) == ([first], [second])


def test_it_refuses_what_the_real_one_refuses(floodgate_client: RecordingClient) -> None:
    with pytest.raises(InvalidParamsError, match="text is empty"):
        floodgate_client.send_message(42, "")
    with pytest.raises(UnknownMethodError):
        floodgate_client.call("sendMesage", chat_id=42)
    with pytest.raises(InvalidParamsError, match="a queue takes"):
        floodgate_client.call("sendMessage", chat_id=42, text="hi", note="x" * 600_000)
    assert floodgate_client.jobs == []


def test_it_fails_as_told_and_recovers(floodgate_client: RecordingClient) -> None:
    floodgate_client.fail_with(BLOCKED)
    with pytest.raises(BlockedError):
        floodgate_client.send_message(42, "hi")
    floodgate_client.fail_with(None)
    floodgate_client.send_message(42, "hi")
    assert len(floodgate_client.jobs) == 1


def test_many_that_break_in_the_middle_are_told_as_by_the_real_one(floodgate_client: RecordingClient) -> None:
    def faulty() -> Iterator[Job]:
        for n in range(1, 4):
            yield floodgate_client.job("sendMessage", chat_id=n, text="hi")
        floodgate_client.fail_with(BLOCKED)
        yield floodgate_client.job("sendMessage", chat_id=4, text="hi")

    with pytest.raises(EnqueueManyError) as caught:
        floodgate_client.enqueue_many(faulty())
    assert (caught.value.accepted, caught.value.failed, caught.value.__cause__) == (3, 1, BLOCKED)


def test_results_look_like_telegrams_or_as_told(floodgate_client: RecordingClient) -> None:
    sent = floodgate_client.send_message(42, "hi")
    assert floodgate_client.result(sent.id)["chat"] == {"id": 42}
    assert floodgate_client.result(floodgate_client.delete_message(42, 7)) is True
    floodgate_client.answer_with(lambda job: {"message_id": 99})
    assert floodgate_client.result(floodgate_client.send_dice(42)) == {"message_id": 99}
    floodgate_client.answer_with(lambda job: Record(Standing.DEAD, reason="chat-unreachable"))
    with pytest.raises(DeadLetteredError, match="chat-unreachable"):
        floodgate_client.result(floodgate_client.send_dice(42))
    with pytest.raises(NotSettledError):
        floodgate_client.result("never-seen")


def test_it_notices_use_after_close() -> None:
    client = RecordingClient()
    client.close()
    client.close()
    with pytest.raises(ClosedError):
        client.send_message(42, "hi")


def test_the_environment_does_not_reach_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOODGATE_BOTS", "not even JSON")
    assert RecordingClient().send_message(42, "hi", bot="any").bot == "any"


def test_the_async_double_does_the_same() -> None:
    async def chats() -> AsyncIterator[int]:
        for chat in (1, 2, 3):
            yield chat

    async def main() -> AsyncRecordingClient:
        async with AsyncRecordingClient() as client:
            job = await client.send_message(42, "hi")
            assert (await client.result(job))["text"] == "hi"
            assert await client.enqueue_many([client.job("sendDice", chat_id=n) async for n in chats()]) == 3
            return client

    assert [job.chat for job in asyncio.run(main()).jobs] == ["42", "1", "2", "3"]
