"""A file, then a text, to one chat, over a slow line: Telegram counts each when it has arrived."""

from __future__ import annotations

import os

import pytest

from floodgate.fake_telegram.server import running_fake
from tests.acceptance.conftest import MakeStage
from tests.proxy import Proxy
from tests.services import Vhost
from tests.waiting import until

CHAT = 42
BYTES_PER_SECOND = 1_000_000
# On its way for longer than a chat's window, and not so long that the chat rests after it.
FILE_BYTES = 1_300_000


@pytest.fixture(params=["sqlite", "redis"])
def store(request: pytest.FixtureRequest) -> dict[str, str]:
    """Settings of a worker with either store."""
    return {} if request.param == "sqlite" else {"FLOODGATE_STATE_URL": request.getfixturevalue("redis_url")}


def test_a_text_after_a_file_on_a_slow_connection_gets_no_429(
    new_stage: MakeStage, vhost: Vhost, store: dict[str, str]
) -> None:
    with running_fake() as fake, Proxy(int(fake.url.rpartition(":")[2]), bytes_per_second=BYTES_PER_SECOND) as line:
        api = {"FLOODGATE_TELEGRAM_API_URL": line.url(fake.url)}
        stage = new_stage(vhost.url, telegram_url=fake.url, extra=store | api)
        client = stage.client()
        client.send_document(CHAT, os.urandom(FILE_BYTES))
        client.send_message(CHAT, "what the file says, in short")
        stage.worker()
        until(lambda: "sendMessage" in [call.method for call in fake.control.arrivals()])
        file, text = (call for call in fake.control.arrivals() if call.chat_id == CHAT)
        assert (file.method, text.method) == ("sendDocument", "sendMessage")
        assert [file.verdict, text.verdict] == ["ok", "ok"]
