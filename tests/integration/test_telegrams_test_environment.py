"""Bots of Telegram's test environment, whose calls go to ``/bot<token>/test/<method>``."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from floodgate.actors.answers import Accepted
from floodgate.actors.sessions import BotSessions
from floodgate.broker.errors import SettingsError
from floodgate.broker.settings.model import Settings, load_settings
from floodgate.fake_telegram.server import running_fake
from floodgate.producer.gateway.answers import RefusalError
from floodgate.producer.gateway.app import BotApiPaths
from floodgate.producer.gateway.callers import Callers, public_path

LIVE, TEST = "123456:" + "A" * 35, "654321:" + "b" * 35 + "/test"
KEY = "654321:a-gateway-key-for-tests"
LIVE_KEY = "123456:a-gateway-key-for-tests"


def settings(**given: Any) -> Settings:
    keys = {"live": [LIVE_KEY], "test": [KEY]}
    return Settings(_env_file=None, bots={"live": LIVE, "test": TEST}, gateway={"keys": keys}, **given)


def test_a_worker_calls_the_test_environment_for_a_bot_whose_token_says_so() -> None:
    async def calls(url: str) -> list[object]:
        sessions = BotSessions(settings(telegram_api_url=url))
        try:
            return [await sessions.call(bot, "getMe", {}, timedelta(seconds=5)) for bot in ("test", "live")]
        finally:
            await sessions.close()

    with running_fake(tokens=[TEST, LIVE]) as fake:
        assert all(isinstance(answer, Accepted) for answer in asyncio.run(calls(fake.url)))
        without = httpx.get(f"{fake.url}/bot{TEST.removesuffix('/test')}/getMe")
        assert without.status_code == 401, "the two environments know different tokens"


@pytest.mark.parametrize(
    ("path", "secret", "name"),
    [
        ("/bot1:x/test/sendMessage", "1:x/test", "sendMessage"),
        ("/bot1:x/sendMessage", "1:x", "sendMessage"),
        ("/bot1:x/test", "1:x", "test"),
        ("/file/bot1:x/test/photos/a.jpg", "1:x/test", "photos/a.jpg"),
        ("/file/bot1:x/photos/test/a.jpg", "1:x", "photos/test/a.jpg"),
    ],
)
def test_the_gateway_reads_the_environment_from_the_path(path: str, secret: str, name: str) -> None:
    async def shown(_request: Request, found: str, rest: str) -> Response:
        return PlainTextResponse(f"{found} {rest}")

    async def call() -> str:
        app = BotApiPaths(shown, shown, PlainTextResponse("other"))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
            return (await client.get(path)).text

    assert asyncio.run(call()) == f"{secret} {name}"


@pytest.mark.parametrize(
    ("secret", "bot"),
    [(TEST, "test"), (f"{KEY}/test", "test"), (KEY, "test"), (LIVE, "live"), (LIVE_KEY, "live")],
)
def test_a_caller_acts_as_a_bot_of_its_environment(secret: str, bot: str) -> None:
    assert Callers(settings()).bot(secret, None) == bot


@pytest.mark.parametrize("secret", [TEST.removesuffix("/test"), f"{LIVE}/test", f"{LIVE_KEY}/test", "/test"])
def test_a_secret_is_refused_in_the_other_environment(secret: str) -> None:
    with pytest.raises(RefusalError):
        Callers(settings()).bot(secret, None)


def test_the_log_shows_the_method_and_no_secret() -> None:
    assert public_path(f"/bot{TEST}/GETme") == "/bot***/getMe"
    assert public_path(f"/bot{TEST}/{KEY}") == "/bot***/…"


def test_another_environment_is_a_malformed_token() -> None:
    with pytest.raises(SettingsError, match="malformed"):
        load_settings(_env_file=None, bot_token=TEST.replace("/test", "/beta"))
