"""Many edits of one message that wait together become one call, and all their callers get its result."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from floodgate.broker.admission.contract import SUPERSEDED, Admission
from floodgate.broker.state.stores import open_store
from floodgate.producer.client import Client
from tests.acceptance.gateway.conftest import Gate
from tests.acceptance.stage import BOT
from tests.waiting import until

CHAT = 4_200_000
EDITS = 100


@pytest.fixture
def gate(gate_on_a_store: Gate) -> Gate:
    return gate_on_a_store


@pytest.fixture
def store(gate: Gate) -> Iterator[Admission]:
    with contextlib.closing(open_store(gate.stage.settings)) as store:
        yield store


def superseded(store: Admission) -> int:
    return store.snapshot(BOT).not_kept.get(SUPERSEDED, 0)


def edits(gate: Gate, chat: int) -> list[str]:
    return [
        str(call.params["text"])
        for call in gate.stage.control.arrivals()
        if call.chat_id == chat and call.method.lower() == "editmessagetext"
    ]


def test_of_a_hundred_edits_the_last_is_made_and_all_callers_get_its_result(gate: Gate, store: Admission) -> None:
    message = gate.call("sendMessage", chat_id=CHAT, text="0").json()["result"]["message_id"]
    store.pause(BOT, str(CHAT), timedelta(seconds=60), "test")
    before = superseded(store)
    with Client(gate.stage.settings) as client, ThreadPoolExecutor(EDITS) as threads:
        jobs = [
            client.job("editMessageText", chat_id=CHAT, message_id=message, text=str(number), coalesce="answer")
            for number in range(1, EDITS)
        ]
        last = {"chat_id": CHAT, "message_id": message, "text": str(EDITS)}
        jobs.append(client.job("editMessageText", **last, coalesce="answer", final=True))
        results = [threads.submit(client.result, job, timeout=60) for job in jobs]
        client.enqueue_many(jobs[:-1])
        until(lambda: superseded(store) == before + EDITS - 2, 60)
        store.resume(BOT, str(CHAT))
        client.enqueue(jobs[-1])  # what waits would ask again much later
        assert {each.result(60)["text"] for each in results} == {str(EDITS)}
    assert edits(gate, CHAT) == [str(EDITS)]


def test_a_gateways_caller_gets_the_result_of_the_newer_call(gate: Gate, store: Admission) -> None:
    chat = CHAT + 1
    message = gate.call("sendMessage", chat_id=chat, text="0").json()["result"]["message_id"]
    store.pause(BOT, str(chat), timedelta(seconds=60), "test")
    before = superseded(store)
    with ThreadPoolExecutor(2) as threads:

        def edit(text: str, **given: str) -> str:
            headers = {"X-Floodgate-Coalesce": "answer"}
            found = gate.call("editMessageText", headers=headers, chat_id=chat, message_id=message, text=text, **given)
            return str(found.json()["result"]["text"])

        old = threads.submit(edit, "old")
        until(lambda: sum(line.length for line in store.explain(BOT, str(chat)).lines) == 1)
        store.resume(BOT, str(chat))
        new = threads.submit(edit, "new", floodgate_final="true")
        assert (old.result(60), new.result(60)) == ("new", "new")
    assert edits(gate, chat) == ["new"]
    assert superseded(store) == before + 1
