"""No caller can make the Bot API server read a file from its own disk; a caller's own file arrives."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.acceptance.gateway.conftest import Gate
from tests.acceptance.stage import TOKEN

SECRETS = "file:///proc/self/environ"
BOUNDARY = "multipart/form-data; boundary=b"


def forms(params: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """One call in each form that the Bot API accepts."""
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in params.items()}
    part = '--b\r\nContent-Disposition: form-data; name="{}"\r\n\r\n{}\r\n'
    parts = "".join(part.format(name, value) for name, value in texts.items()) + "--b--\r\n"
    return {
        "JSON": {"json": params},
        "JSON of texts": {"json": texts},
        "form": {"data": texts},
        "query": {"params": texts},
        "multipart": {"content": parts.encode(), "headers": {"Content-Type": BOUNDARY}},
    }


CALLS: list[tuple[str, dict[str, Any]]] = [
    ("sendPhoto", {"chat_id": 1, "photo": SECRETS}),
    ("sendMediaGroup", {"chat_id": 1, "media": [{"type": "photo", "media": SECRETS}] * 2}),
    ("uploadStickerFile", {"user_id": 1, "sticker_format": "static", "sticker": SECRETS}),
    ("setWebhook", {"url": "https://example.org/hook", "certificate": SECRETS}),
    ("SetMyProfilePhoto", {"photo": {"type": "static", "photo": SECRETS}}),
    ("createNewStickerSet", {"user_id": 1, "name": "x", "title": "x", "stickers": [{"sticker": SECRETS}]}),
]


@pytest.mark.parametrize("form", forms({}))
@pytest.mark.parametrize(("method", "params"), CALLS, ids=[name for name, _ in CALLS])
def test_a_file_on_the_servers_disk_is_refused_in_every_form(
    gate: Gate, method: str, params: dict[str, Any], form: str
) -> None:
    answer = httpx.post(f"{gate.url}/bot{TOKEN}/{method}", **forms(params)[form])
    assert answer.status_code == 400
    assert "paths on the Bot API server's disk are not passed on" in answer.json()["description"]
    assert gate.stage.control.arrivals() == []


def test_a_form_part_that_hides_another_is_refused(gate: Gate) -> None:
    hidden = 'x"; name="photo'
    url = f"{gate.url}/bot{TOKEN}/sendPhoto"
    answers = [
        httpx.post(url, json={"chat_id": 1, "photo": "id", hidden: SECRETS}),
        httpx.post(url, data={"chat_id": "1", "photo": "id"}, files={"a\\b": ("x", b"x")}),
    ]
    assert [answer.status_code for answer in answers] == [400, 400]
    assert gate.stage.control.arrivals() == []


@pytest.mark.parametrize("method", ["sendPhoto", "setMyProfilePhoto"])
def test_a_file_in_the_place_of_an_option_is_refused(gate: Gate, method: str) -> None:
    files = {"floodgate_priority": ("x", b"x")}
    answer = httpx.post(f"{gate.url}/bot{TOKEN}/{method}", data={"chat_id": "1", "photo": "id"}, files=files)
    assert (answer.status_code, "floodgate_priority" in answer.json()["description"]) == (400, True)
    assert gate.stage.control.arrivals() == []


def test_a_callers_own_file_is_passed_on_with_its_call(gate: Gate) -> None:
    answer = httpx.post(
        f"{gate.url}/bot{TOKEN}/setMyProfilePhoto",
        data={"photo": json.dumps({"type": "static", "photo": "attach://mine"})},
        files={"mine": ("me.jpg", b"x" * 200_000, "image/jpeg")},
    )
    assert answer.json()["ok"]
    (call,) = gate.stage.control.arrivals()
    assert json.loads(call.params["photo"]) == {"type": "static", "photo": "attach://mine"}
    assert call.params["mine"] == {"name": "me.jpg", "size": 200_000}
