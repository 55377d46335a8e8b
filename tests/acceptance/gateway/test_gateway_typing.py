"""Typing through the gateway: a flood of it is shed, and no library sees an error."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import httpx

from tests.acceptance.gateway.conftest import Gate
from tests.acceptance.stage import TOKEN

CHAT = 4_100_000
CALLS = 60


def test_a_flood_of_typing_keeps_to_its_budget_and_no_library_sees_an_error(gate: Gate) -> None:
    with httpx.Client(timeout=60) as client, ThreadPoolExecutor(8) as threads:

        def call(method: str, **params: object) -> httpx.Response:
            return client.post(f"{gate.url}/bot{TOKEN}/{method}", json={"chat_id": CHAT, **params})

        typing = [threads.submit(call, "sendChatAction", action="typing") for _ in range(CALLS)]
        answers = [each.result().json() for each in typing]
        message = call("sendMessage", text="the answer").json()
    assert answers == [{"ok": True, "result": True}] * CALLS
    assert message["result"]["text"] == "the answer"
    totals = gate.stage.control.summary()
    assert totals.answers_429 == 0
    assert totals.typing_in_5s <= 20


def test_a_job_that_is_no_longer_worth_it_is_answered_410(gate: Gate) -> None:
    chat = CHAT + 1
    first = gate.call("sendMessage", chat_id=chat, text="first")
    assert first.json()["ok"]
    late = gate.call("sendMessage", headers={"X-Floodgate-Worth-Seconds": "0.001"}, chat_id=chat, text="late")
    assert (late.status_code, late.json()["description"].partition(" (job")[0]) == (410, "Not sent: shed")
    assert [each.params["text"] for each in gate.stage.control.arrivals() if each.chat_id == chat] == ["first"]
