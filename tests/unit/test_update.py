"""Updates: the key of their order, and how they are passed on."""

from __future__ import annotations

import json
from typing import Any

import pytest

from floodgate.broker.errors import MalformedJobError, MalformedUpdateError
from floodgate.broker.messages.update import (
    MAX_UPDATE_BYTES,
    Update,
    decode_update,
    partition_key,
    publication,
    read_update,
)

USER, CHAT, OTHER = {"id": 42}, {"id": -1001}, {"id": 7}


@pytest.mark.parametrize(
    ("kind", "content", "key"),
    [
        ("message", {"chat": CHAT, "from": USER}, "-1001"),
        ("edited_channel_post", {"chat": CHAT}, "-1001"),
        ("business_message", {"chat": USER, "from": OTHER}, "42"),
        ("deleted_business_messages", {"chat": USER, "message_ids": [1]}, "42"),
        ("business_connection", {"id": "bc", "user": USER, "user_chat_id": 42}, "42"),
        ("callback_query", {"id": "1", "from": USER, "message": {"chat": CHAT, "message_id": 5}}, "-1001"),
        ("callback_query", {"id": "1", "from": USER, "inline_message_id": "x"}, "42"),
        ("inline_query", {"id": "1", "from": USER, "query": "cats"}, "42"),
        ("chosen_inline_result", {"result_id": "1", "from": USER}, "42"),
        ("shipping_query", {"id": "1", "from": USER}, "42"),
        ("pre_checkout_query", {"id": "1", "from": USER}, "42"),
        ("purchased_paid_media", {"from": USER, "paid_media_payload": "p"}, "42"),
        ("my_chat_member", {"chat": CHAT, "from": USER}, "-1001"),
        ("chat_join_request", {"chat": CHAT, "from": USER}, "-1001"),
        ("message_reaction", {"chat": CHAT, "user": USER}, "-1001"),
        ("message_reaction_count", {"chat": CHAT}, "-1001"),
        ("chat_boost", {"chat": CHAT, "boost": {}}, "-1001"),
        ("poll_answer", {"poll_id": "9", "user": USER}, "42"),
        ("poll_answer", {"poll_id": "9", "voter_chat": CHAT, "user": USER}, "-1001"),
        ("poll", {"id": "9", "question": "?"}, "poll:9"),
        ("of_tomorrow", {"chat": CHAT}, "-1001"),
        ("of_tomorrow", {"colour": "blue"}, "update:5"),
    ],
)
def test_an_update_belongs_to_its_chat_or_else_to_its_user(kind: str, content: dict[str, Any], key: str) -> None:
    assert partition_key({"update_id": 5, kind: content}) == key


def test_all_updates_of_a_user_in_private_share_one_line() -> None:
    typed = {"update_id": 1, "message": {"chat": USER, "from": USER}}
    searched = {"update_id": 2, "inline_query": {"id": "1", "from": USER}}
    assert partition_key(typed) == partition_key(searched)


@pytest.mark.parametrize(
    "given", [None, 1, "text", [], {}, {"update_id": "1"}, {"update_id": True}, {"update_id": -1}, {"update_id": 2**63}]
)
def test_an_object_without_a_usable_id_is_not_an_update(given: object) -> None:
    with pytest.raises(MalformedUpdateError, match="Not an update"):
        read_update("news", given)


def test_an_update_is_passed_on_as_telegram_gave_it() -> None:
    body = {"update_id": 9, "of_tomorrow": {"chat": CHAT, "text": "ключ 🔑", "big": 2**60, "list": [1, None, 2.5]}}
    sent = publication(Update("news", 9, body), 16)
    assert decode_update(sent.body) == Update("news", 9, body)
    assert sent.message_id == "update-news-9"
    message = json.loads(sent.body)
    assert (message["actor_name"], message["queue_name"]) == ("handle_update", sent.routing_key)
    assert sent.routing_key.startswith("updates.news.")


def test_an_update_too_large_for_a_queue_is_refused_before_publishing() -> None:
    huge = {"update_id": 1, "message": {"chat": CHAT, "text": "x" * MAX_UPDATE_BYTES}}
    with pytest.raises(MalformedUpdateError, match="bytes, and a queue accepts"):
        publication(Update("news", 1, huge), 16)


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b'{"kwargs": {"update": {"v": 2, "bot": "b", "body": {"update_id": 1}}}}', b"\xff"]
)
def test_bytes_that_are_not_an_update_are_malformed_like_those_that_are_not_a_job(body: bytes) -> None:
    with pytest.raises(MalformedJobError, match="Not an update"):
        decode_update(body)
