"""No parameter reaches a file on the Bot API server's own disk, through a client, a gateway or a published job."""

from __future__ import annotations

import json
from typing import Any

import pytest

from floodgate.broker.errors import InvalidParamsError, MalformedJobError
from floodgate.broker.messages.job import decode_job, encode_job, new_job
from floodgate.broker.messages.local_files import local_file_in
from floodgate.broker.settings.model import Settings
from floodgate.producer.core import Composer

SECRETS = "file:///proc/self/environ"
LOCAL = {
    "a URL": ({"photo": SECRETS}, "photo"),
    "one slash": ({"photo": "file:/proc/self/environ"}, "photo"),
    "another host": ({"photo": "file://localhost/etc/passwd"}, "photo"),
    "upper case": ({"photo": "FILE:///etc/passwd"}, "photo"),
    "blanks before": ({"photo": " \t\n\0file:///etc/passwd"}, "photo"),
    "a path": ({"document": "/etc/passwd"}, "document"),
    "a path up": ({"document": "../etc/passwd"}, "document"),
    "a path at home": ({"document": "~/.ssh/id_rsa"}, "document"),
    "a Windows path": ({"document": "C:\\secrets"}, "document"),
    "in an album": (
        {"media": [{"type": "photo", "media": "id"}, {"type": "photo", "media": SECRETS}]},
        "media[1].media",
    ),
    "a thumbnail in an album": (
        {"media": [{"type": "video", "media": "id", "thumbnail": SECRETS}]},
        "media[0].thumbnail",
    ),
    "JSON text": ({"media": json.dumps([{"type": "photo", "media": SECRETS}])}, "media[0].media"),
    "JSON in JSON": ({"content": {"photo": json.dumps({"photo": SECRETS})}}, "content.photo.photo"),
    "escapes": ({"media": r'[{"\u006dedia": "\u0066ile:///etc/passwd"}]'}, "media[0].media"),
    "a field twice": ({"media": f'[{{"media": "{SECRETS}", "media": "id"}}]'}, "media[0].media"),
    "JSON that only Telegram reads": ({"media": '\v[{"media":\v"file:///etc/passwd"}]'}, "media"),
    "a set of stickers": ({"stickers": json.dumps([{"sticker": SECRETS, "format": "static"}])}, "stickers[0].sticker"),
    "a profile photo": ({"photo": {"type": "static", "photo": SECRETS}}, "photo.photo"),
    "an old name": ({"thumb": SECRETS}, "thumb"),
    "a method to come": ({"rich_message": {"blocks": [{"photo": SECRETS}]}}, "rich_message.blocks[0].photo"),
}
HARMLESS: list[dict[str, Any]] = [
    {"photo": "AgACAgIAAxkBAAIB-_"},
    {"photo": "https://example.org/a.png"},
    {"photo": "attach://photo"},
    {"text": SECRETS},
    {"text": "/start"},
    {"caption": "[file:///x"},
    {"text": '{"photo": broken'},
    {"reply_markup": {"inline_keyboard": [[{"text": "file:///x", "url": "https://example.org/"}]]}},
    {"media": [{"type": "photo", "media": "https://example.org/a.png", "caption": "/etc/passwd"}]},
]


@pytest.mark.parametrize(("params", "where"), LOCAL.values(), ids=LOCAL)
def test_a_file_on_the_servers_disk_is_refused_by_name(params: dict[str, Any], where: str) -> None:
    assert local_file_in(params) == where
    with pytest.raises(InvalidParamsError, match=r"disk are not passed on\.$"):
        new_job("sendDocument", {"chat_id": 1, **params})


def test_a_client_refuses_a_local_file_when_called() -> None:
    with pytest.raises(InvalidParamsError, match=r"^params: photo must be a file_id"):
        Composer(Settings(_env_file=None)).call("sendPhoto", {"chat_id": 1, "photo": SECRETS})


@pytest.mark.parametrize("params", HARMLESS, ids=str)
def test_other_parameters_are_accepted(params: dict[str, Any]) -> None:
    assert new_job("sendDocument", {"chat_id": 1, **params}).params == {"chat_id": 1, **params}


@pytest.mark.parametrize(("params", "where"), LOCAL.values(), ids=LOCAL)
def test_a_worker_refuses_a_job_with_a_local_file_from_any_publisher(params: dict[str, Any], where: str) -> None:
    job = new_job("sendDocument", {"chat_id": 1})
    body = encode_job(job.model_copy(update={"params": {"chat_id": 1, **params}}), "send.default.bulk.00")
    with pytest.raises(MalformedJobError) as error:
        decode_job(body)
    assert str(error.value).startswith(f"Not a job: params: {where} must be a file_id")


@pytest.mark.parametrize("name", ['a"; name="photo', "a\r\nb", "", "a b", "ü"])
def test_a_name_that_could_inject_another_form_part_is_refused(name: str) -> None:
    with pytest.raises(InvalidParamsError, match="is not a parameter's name"):
        new_job("sendDocument", {"chat_id": 1, name: SECRETS})


def test_deep_nesting_does_not_exhaust_the_stack() -> None:
    deep: Any = SECRETS
    for _ in range(100_000):
        deep = [deep]
    assert local_file_in({"media": deep}) is not None
    assert local_file_in({"media": "[" * 100_000}) == "media", "the server may read it"
