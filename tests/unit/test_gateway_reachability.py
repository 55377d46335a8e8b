"""What the gateway overhears of updates that pass through."""

from __future__ import annotations

import json
from typing import Any

import pytest

from floodgate.broker.messages.update import Update
from floodgate.producer.gateway.reachability import chats_in


def change(status: str) -> dict[str, Any]:
    return {"my_chat_member": {"chat": {"id": 5}, "from": {"id": 5}, "new_chat_member": {"status": status}}}


@pytest.mark.parametrize(
    ("body", "chat"),
    [
        ({"message": {"chat": {"id": -1001234567890}, "from": {"id": 7}}}, "-1001234567890"),
        ({"callback_query": {"from": {"id": 7}, "message": {"chat": {"id": 9}}}}, "9"),
        ({"inline_query": {"from": {"id": 7}}}, "7"),
        (change("member"), "5"),
        (change("kicked"), None),
        (change("left"), None),
        ({"poll": {"id": "3"}}, None),
    ],
)
def test_a_chat_is_heard_from_by_what_comes_from_it_but_not_by_the_word_that_the_bot_is_out(
    body: dict[str, Any], chat: str | None
) -> None:
    assert Update("default", 1, body).chat_heard_from == chat


def test_the_chats_of_an_answer_are_each_found_once() -> None:
    updates = [{"update_id": n, "message": {"chat": {"id": n % 2 + 1}}} for n in range(4)]
    assert chats_in("default", json.dumps({"ok": True, "result": updates}).encode()) == {"1", "2"}


@pytest.mark.parametrize(
    "answer",
    [b"", b"<html>", b"[]", b"{}", b'{"result": true}', b'{"result": [1, {}, {"update_id": "x"}]}', b"[" * 100_000],
)
def test_what_is_no_such_answer_tells_of_no_chat(answer: bytes) -> None:
    assert chats_in("default", answer) == set()
