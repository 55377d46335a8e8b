"""Which updates may be responses to a campaign."""

from __future__ import annotations

from typing import Any

import pytest

from floodgate.producer.campaigns.content.recipient_codes import RecipientCode
from floodgate.producer.campaigns.responses.responses import Response, ResponseKind, read_response

CHAT = {"id": 42, "type": "private", "username": "Ann"}
KEYS = ("42", "@ann")


def change(status: str) -> dict[str, Any]:
    return {"my_chat_member": {"chat": CHAT, "new_chat_member": {"status": status}}}


@pytest.mark.parametrize(
    ("body", "kind", "fields"),
    [
        ({"message": {"text": "/start", "chat": CHAT}}, ResponseKind.START, {}),
        ({"message": {"text": "/start@spring_bot", "chat": CHAT}}, ResponseKind.START, {}),
        ({"message": {"text": "/start partner", "chat": CHAT}}, ResponseKind.START, {}),
        ({"message": {"text": "/start fg_1_a", "chat": CHAT}}, ResponseKind.START, {"code": RecipientCode(1, 10)}),
        (
            {"message": {"text": "Yes", "chat": CHAT, "reply_to_message": {"message_id": 7}}},
            ResponseKind.REPLY,
            {"message_id": 7},
        ),
        (
            {"callback_query": {"data": "x", "message": {"message_id": 7, "chat": CHAT}}},
            ResponseKind.PRESS,
            {"message_id": 7},
        ),
        (change("kicked"), ResponseKind.BLOCK, {}),
        (change("left"), ResponseKind.BLOCK, {}),
    ],
)
def test_a_possible_response_names_its_chat(body: dict[str, Any], kind: ResponseKind, fields: dict[str, Any]) -> None:
    assert read_response("news", {"update_id": 1, **body}, 5) == Response("news", kind, KEYS, 5, **fields)


@pytest.mark.parametrize(
    "body",
    [
        {"message": {"text": "hello", "chat": CHAT}},
        {"message": {"text": "/starting", "chat": CHAT}},
        {"message": {"text": None, "chat": None}},
        {"message": None},
        {"callback_query": {"data": "x", "inline_message_id": "y"}},
        {"callback_query": "nonsense"},
        change("member"),
        {"inline_query": {"query": "/start"}},
    ],
)
def test_other_updates_are_none(body: dict[str, Any]) -> None:
    assert read_response("news", {"update_id": 1, **body}, 5) is None


@pytest.mark.parametrize("name", ["\ud800", "a\0b", "", "x" * 40])
def test_a_name_that_a_database_may_refuse_is_left_out(name: str) -> None:
    found = read_response("news", {"message": {"text": "/start", "chat": {"id": 42, "username": name}}}, 5)
    assert found is not None
    assert found.chats == ("42",)


def test_a_response_from_no_chat_belongs_to_nobody() -> None:
    found = read_response("news", {"message": {"text": "/start", "chat": "nonsense"}}, 5)
    assert found is not None
    assert found.chats == ()
