"""The chats that the gateway finds in updates passing through."""

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
def test_an_update_shows_its_chat_as_reachable_unless_it_reports_the_bots_removal(
    body: dict[str, Any], chat: str | None
) -> None:
    assert Update("default", 1, body).chat_heard_from == chat


def test_each_chat_in_an_answer_is_found_once() -> None:
    updates = [{"update_id": n, "message": {"chat": {"id": n % 2 + 1}}} for n in range(4)]
    assert chats_in("default", json.dumps({"ok": True, "result": updates}).encode()) == {"1", "2"}


@pytest.mark.parametrize(
    "answer",
    [b"", b"<html>", b"[]", b"{}", b'{"result": true}', b'{"result": [1, {}, {"update_id": "x"}]}', b"[" * 100_000],
)
def test_other_answers_contain_no_chats(answer: bytes) -> None:
    assert chats_in("default", answer) == set()
