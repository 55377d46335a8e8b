"""Calls of handlers by name: those that are not queued get Telegram's own answer, whatever the name."""

from __future__ import annotations

import asyncio

import pytest
from pydantic import SecretStr

from floodgate.broker.settings.model import Settings
from floodgate.fake_telegram.server import running_fake
from floodgate.producer.async_client import AsyncClient
from floodgate.updates.replies import BotApiRoots, PipelineRequest

TOKEN = "100200300:" + "A" * 35


@pytest.mark.parametrize(
    ("name", "status"), [("GETME", 200), ("getHologram", 404), ("no_such_method", 404), ("logOut", 403)]
)
def test_a_call_that_is_not_queued_gets_an_answer(name: str, status: int) -> None:
    async def call(url: str) -> int:
        settings = Settings(_env_file=None, bot_token=TOKEN, telegram_api_url=url)
        roots = BotApiRoots(SecretStr(f"{url}/bot{TOKEN}"), SecretStr(f"{url}/file/bot{TOKEN}"))
        request = PipelineRequest(settings, "default", AsyncClient(settings), roots)
        await request.initialize()
        try:
            return (await request.do_request(f"{url}/bot{TOKEN}/{name}", "POST"))[0]
        finally:
            await request.shutdown()

    with running_fake() as fake:
        assert asyncio.run(call(fake.url)) == status
