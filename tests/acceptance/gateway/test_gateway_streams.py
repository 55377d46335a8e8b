"""A caller of any language posts a text while it grows, and the chat shows it as it arrives."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import httpx
import pytest

from tests.acceptance.gateway.conftest import KEY, Gate
from tests.acceptance.stage import TOKEN
from tests.waiting import until

USER, GROUP = 4_300_001, -1000004300002
BOT_ID = int(TOKEN.partition(":")[0])
BUTTON = {"inline_keyboard": [[{"text": "Again", "callback_data": "again"}]]}
HEADERS = {"Authorization": f"Bearer {KEY}"}


def texts(gate: Gate, chat: int) -> list[str]:
    return [str(message["text"]) for message in gate.stage.control.shown(BOT_ID, chat).messages]


def post(gate: Gate, body: Iterator[bytes] | bytes, **query: object) -> httpx.Response:
    params = {name: str(value) for name, value in query.items()}
    return httpx.post(f"{gate.url}/floodgate/v1/streams", params=params, content=body, headers=HEADERS, timeout=60)


@pytest.mark.parametrize("chat", [USER, GROUP])
def test_the_chat_shows_the_text_before_it_is_whole(gate_on_a_store: Gate, chat: int) -> None:
    gate = gate_on_a_store

    def body() -> Iterator[bytes]:
        yield "<b>Grüß".encode()
        until(lambda: gate.stage.control.shown(BOT_ID, chat).draft if chat == USER else texts(gate, chat))
        whole = " dich</b>, 😀".encode()
        yield whole[:-1]  # in the middle of a character
        yield whole[-1:]

    answer = post(gate, body(), chat_id=chat, formatting="HTML", reply_markup=json.dumps(BUTTON))
    assert answer.status_code == 200, answer.text
    end = answer.json()
    assert (end["status"], len(end["job_ids"])) == ("sent", 1)
    assert [message["text"] for message in end["messages"]] == texts(gate, chat) == ["Grüß dich, 😀"]


def test_a_caller_that_hangs_up_leaves_the_text_and_the_note(gate: Gate) -> None:
    host, port = gate.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as caller:
        query = f"chat_id={USER + 1}&on_error=%20(cut%20off)"
        head = f"POST /floodgate/v1/streams?{query} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
        caller.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n5\r\nHello\r\n".encode())
        until(lambda: gate.stage.control.shown(BOT_ID, USER + 1).draft)
    until(lambda: texts(gate, USER + 1) == ["Hello (cut off)"])


@pytest.mark.parametrize(
    ("query", "body", "code", "description"),
    [
        ({"chat_id": 42, "formatting": "html"}, b"x", 422, "formatting"),
        ({"chat_id": 42, "parse_mode": "HTML"}, b"x", 422, "parse_mode"),
        ({"chat_id": 42, "reply_markup": "["}, b"x", 422, "reply_markup"),
        ({}, b"x", 422, "chat_id"),
        ({"chat_id": "no chat"}, b"x", 400, "chat_id"),
        ({"chat_id": 42}, b"\xff", 400, "not UTF-8"),
        ({"chat_id": 4_300_009}, b"x" * 70_000, 413, "more than 65536 characters"),
    ],
)
def test_a_wrong_request_is_refused(
    gate: Gate, query: dict[str, object], body: bytes, code: int, description: str
) -> None:
    answer = post(gate, body, **query)
    assert (answer.status_code, answer.json()["error_code"]) == (code, code)
    assert description in answer.json()["description"]
    unknown = httpx.post(f"{gate.url}/floodgate/v1/streams", params={"chat_id": "42"}, content=b"x")
    assert unknown.status_code == 401
