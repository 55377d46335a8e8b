"""The product's test double behaves like the real clients, except that it sends nothing."""

from __future__ import annotations

import asyncio
import inspect

import pytest

import floodgate
from floodgate.broker.errors import (
    ClosedError,
    DeadLetteredError,
    DedupeKeyError,
    InvalidParamsError,
    NotSettledError,
    UnknownMethodError,
)
from floodgate.producer.async_client import AsyncClient
from floodgate.producer.client import Client
from floodgate.testing import AsyncRecordingClient, RecordingClient

pytest_plugins = ["floodgate.testing.fixtures"]
PAIRS = [(Client, RecordingClient), (AsyncClient, AsyncRecordingClient)]


@pytest.mark.parametrize(("real", "double"), PAIRS)
def test_it_has_every_public_method_of_a_real_client(real: type, double: type) -> None:
    missing = {name for name in dir(real) if not name.startswith("_")} - set(dir(double))
    assert missing == set()
    for name in ("job", "call", "enqueue", "enqueue_many", "enqueue_each", "status", "cancel", "result", "close"):
        assert [*inspect.signature(getattr(real, name)).parameters] == [
            *inspect.signature(getattr(double, name)).parameters
        ]


def test_it_records_jobs_in_the_order_of_the_calls() -> None:
    with RecordingClient(bot="news") as client:
        client.send_message(1, "one")
        client.enqueue_many(client.job("sendMessage", chat_id=2, text=str(n), priority="bulk") for n in range(3))
    assert client.texts == ["one", "0", "1", "2"]
    assert {job.bot for job in client.jobs} == {"news"}
    with pytest.raises(ClosedError):
        client.send_message(1, "too late")


def test_it_refuses_the_same_calls_as_a_real_client() -> None:
    client = RecordingClient()
    with pytest.raises(InvalidParamsError):
        client.send_message(1, "x" * 5000)
    with pytest.raises(UnknownMethodError):
        client.call("getUpdates")
    assert client.jobs == []


def test_jobs_with_one_dedupe_key_are_recorded_as_one() -> None:
    client = RecordingClient()
    first = client.send_message(1, "x", dedupe_key="k")
    second = client.send_message(1, "x", dedupe_key="k")
    assert (first.known, second.known) == (False, True)
    assert client.jobs == [first]
    assert client.result(second) == client.result(first)
    with pytest.raises(DedupeKeyError):
        client.send_message(1, "y", dedupe_key="k")


def test_outcomes_can_be_preset() -> None:
    client = RecordingClient()
    client.will_fail("sendMessage", "chat-unreachable")
    with pytest.raises(DeadLetteredError, match="chat-unreachable"):
        client.result(client.send_message(1, "x"))
    client.will_wait("sendMessage")
    with pytest.raises(NotSettledError):
        client.result(client.send_message(1, "x"))
    client.will_return("sendMessage", {"message_id": 7})
    assert client.result(client.send_message(1, "x")) == {"message_id": 7}


def test_an_unknown_id_is_not_called_safe() -> None:
    with pytest.raises(NotSettledError, match="no job 'no-such-id'"):
        RecordingClient().result("no-such-id")


def test_the_environment_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOODGATE_BOTS", "no JSON")
    assert RecordingClient().send_message(1, "x", bot="any").bot == "any"


def test_the_async_recording_client_is_awaited() -> None:
    async def play() -> AsyncRecordingClient:
        async with AsyncRecordingClient() as client:
            job = await client.send_message(1, "x")
            assert (await client.result(job))["text"] == "x"
            assert await client.enqueue_many([client.job("sendMessage", chat_id=1, text="y")]) == 1
        return client

    assert asyncio.run(play()).texts == ["x", "y"]


def test_the_fixture_replaces_the_public_name(floodgate_client: RecordingClient) -> None:
    with floodgate.Client() as client:
        client.send_message(1, "x")
    assert floodgate_client.texts == ["x"]


def test_waiting_jobs_can_be_cancelled_and_sent_ones_not() -> None:
    client = RecordingClient()
    sent = client.send_message(1, "sent", campaign="spring")
    client.will_wait("sendMessage")
    one = client.send_message(1, "one")
    many = client.send_message(1, "many", campaign="spring")
    assert [record.reason for record in client.cancel(one, sent)] == ["cancelled", None]
    assert client.cancel(campaign="spring") == []
    with pytest.raises(DeadLetteredError, match="cancelled"):
        client.result(many)
    with pytest.raises(InvalidParamsError, match="what to cancel"):
        client.cancel()


def test_campaigns_are_created_and_checked_but_not_sent() -> None:
    definition = {"name": "spring", "content": {"text": "Hello {{ name }}"}}
    with RecordingClient() as client:
        assert client.campaigns.create(definition, [{"chat_id": 42, "name": "Ann"}]).state == "ready"
        assert client.campaigns.start("spring").state == "running"
        assert client.jobs == []
        client.close()


def test_campaigns_of_an_async_client_are_created_and_checked_but_not_sent() -> None:
    async def use() -> None:
        async with AsyncRecordingClient() as client:
            await client.campaigns.create({"name": "spring", "content": {"text": "Hello"}}, [{"chat_id": 42}])
            assert (await client.campaigns.check("spring")).checked == 1

    asyncio.run(use())
