"""Calls of handlers by name: some are queued, the others get Telegram's own answer, whatever the name."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from pydantic import SecretStr
from telegram.error import TimedOut
from telegram.request import RequestData
from telegram.request._requestparameter import RequestParameter

from floodgate.broker.settings.model import Settings
from floodgate.fake_telegram.server import running_fake
from floodgate.producer.async_client import AsyncClient
from floodgate.updates.replies import BotApiRoots, PipelineRequest
from tests.services import Vhost

TOKEN = "100200300:" + "A" * 35


async def call(settings: Settings, name: str, **params: object) -> tuple[int, bytes]:
    url = settings.telegram_api_url
    roots = BotApiRoots(SecretStr(f"{url}/bot{TOKEN}"), SecretStr(f"{url}/file/bot{TOKEN}"))
    request = PipelineRequest(settings, "default", AsyncClient(settings), roots)
    await request.initialize()
    try:
        data = RequestData([RequestParameter(key, value, None) for key, value in params.items()])
        return await request.do_request(f"{url}/bot{TOKEN}/{name}", "POST", data)
    finally:
        await request.shutdown()


@pytest.mark.parametrize(
    ("name", "status"), [("GETME", 200), ("getHologram", 404), ("no_such_method", 404), ("logOut", 403)]
)
def test_a_call_that_is_not_queued_gets_an_answer(name: str, status: int) -> None:
    with running_fake() as fake:
        settings = Settings(_env_file=None, bot_token=TOKEN, telegram_api_url=fake.url)
        assert asyncio.run(call(settings, name))[0] == status


def test_a_handler_waits_for_a_message_and_not_for_typing_that_no_worker_sends(vhost: Vhost, tmp_path: Path) -> None:
    settings = Settings(
        _env_file=None,
        rabbitmq_url=vhost.url,
        state_url=f"sqlite:///{tmp_path}/state.db",
        bot_token=TOKEN,
        partitions=1,
        updates={"reply_seconds": 0.2},
    )
    status, body = asyncio.run(call(settings, "sendChatAction", chat_id=5, action="typing"))
    assert (status, json.loads(body)) == (200, {"ok": True, "result": True})
    with pytest.raises(TimedOut, match="is safe"):
        asyncio.run(call(settings, "sendMessage", chat_id=5, text="hi"))
