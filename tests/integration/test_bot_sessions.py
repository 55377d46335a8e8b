"""Calls by bot name, over a real HTTP server: callers get Telegram's own answers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from aiohttp import web

from floodgate.actors.answers import Accepted, Break, Refusal
from floodgate.actors.sessions import BotSessions
from floodgate.broker.errors import UnknownBotError
from floodgate.broker.settings.model import Settings

TOKEN = "123456:" + "A" * 35
OTHER_TOKEN = "654321:" + "b" * 35
SOON = timedelta(seconds=5)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def ok(result: object) -> web.Response:
    return web.json_response({"ok": True, "result": result})


def refusal(code: int, description: str, **parameters: object) -> web.Response:
    fields = {"ok": False, "error_code": code, "description": description}
    return web.json_response(fields | ({"parameters": parameters} if parameters else {}), status=code)


@contextlib.asynccontextmanager
async def sessions(handler: Handler) -> AsyncIterator[BotSessions]:
    app = web.Application()
    app.router.add_route("*", "/bot{token}/{method}", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    root = f"http://127.0.0.1:{runner.addresses[0][1]}"
    opened = BotSessions(Settings(_env_file=None, bot_token=TOKEN, bots={"news": OTHER_TOKEN}, telegram_api_url=root))
    try:
        yield opened
    finally:
        await opened.close()
        await runner.cleanup()


def ask(handler: Handler, method: str = "sendMessage", **params: Any) -> object:
    async def scenario() -> object:
        async with sessions(handler) as opened:
            return await opened.call("default", method, params, SOON)

    return asyncio.run(scenario())


def answering(response: Callable[[], web.StreamResponse]) -> Handler:
    async def handler(_: web.Request) -> web.StreamResponse:
        return response()

    return handler


@pytest.mark.parametrize("result", [{"message_id": 5, "chat": {"id": 7}}, True, [{"message_id": 1}], 42, None])
def test_the_result_is_telegrams_own_json(result: object) -> None:
    assert ask(answering(lambda: ok(result)), chat_id=7, text="x") == Accepted(result)


def test_parameters_arrive_as_given_in_the_job() -> None:
    seen: list[object] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        seen.append(await request.json())
        return ok(True)

    params = {
        "chat_id": "@Name",
        "media": [{"type": "photo", "media": "AgAC"}, {"type": "photo", "media": "https://x/y"}],
        "message_ids": [1, 2],
        "caption_entities": [{"type": "bold", "offset": 0, "length": 2}],
        "reply_markup": {"inline_keyboard": [[{"text": "ü", "callback_data": "1"}]]},
        "disable_notification": False,
    }
    before = repr(params)
    ask(handler, "sendMediaGroup", **params)
    assert seen == [params]
    assert repr(params) == before


def test_each_bot_calls_with_its_own_token() -> None:
    seen: list[str] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        seen.append(request.match_info["token"])
        return ok(True)

    async def scenario() -> None:
        async with sessions(handler) as opened:
            for bot in ("default", "news", "default"):
                await opened.call(bot, "sendMessage", {}, SOON)
            with pytest.raises(UnknownBotError, match="nobody"):
                await opened.call("nobody", "sendMessage", {}, SOON)

    asyncio.run(scenario())
    assert seen == [TOKEN, OTHER_TOKEN, TOKEN]


def test_no_call_is_made_before_the_first_job() -> None:
    seen: list[str] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        seen.append(request.match_info["method"])
        return ok(True)

    asyncio.run(_one_call(handler))
    assert seen == ["sendMessage"]


async def _one_call(handler: Handler) -> None:
    async with sessions(handler) as opened:
        await opened.call("default", "sendMessage", {}, SOON)


def test_a_refusal_has_its_code_description_and_parameters() -> None:
    flood = answering(lambda: refusal(429, "Too Many Requests: retry after 7", retry_after=7))
    assert ask(flood) == Refusal(429, "Too Many Requests: retry after 7", retry_after=timedelta(seconds=7))
    moved = answering(lambda: refusal(400, "Bad Request: upgraded", migrate_to_chat_id=-1001234567890))
    assert ask(moved) == Refusal(400, "Bad Request: upgraded", migrate_to="-1001234567890")
    html = answering(lambda: web.Response(status=502, text="<html>"))
    assert ask(html) == Refusal(502, "HTTP 502 Bad Gateway", from_bot_api=False)
    odd = answering(lambda: web.json_response({"ok": False, "error_code": 400, "description": "no"}))
    assert ask(odd) == Refusal(400, "no")


@pytest.mark.parametrize(
    "body", ["", "<html>welcome</html>", "[]", "{}", '{"ok":true}', '{"ok":true,"resu', "[" * 5000]
)
def test_a_2xx_answer_without_a_result_may_have_acted(body: str) -> None:
    assert ask(answering(lambda: web.Response(text=body))) == Break(
        "unreadable answer with a status of 2xx", surely_not_sent=False
    )


def _not_found_but_for(get_me: Callable[[], web.StreamResponse]) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        return get_me() if request.match_info["method"] == "getMe" else refusal(404, "Not Found")

    return handler


def test_a_404_blames_the_method_if_the_bot_is_known_and_otherwise_the_bot() -> None:
    assert ask(_not_found_but_for(lambda: ok({"id": 1}))) == Refusal(404, "Not Found")
    unknown = ask(_not_found_but_for(lambda: refusal(401, "Unauthorized")))
    assert unknown == Refusal(401, "Not Found (getMe too: Unauthorized)")
    unclear = ask(_not_found_but_for(lambda: refusal(502, "Bad Gateway")))
    assert unclear == Break("Not Found, and getMe could not tell why", surely_not_sent=True)


def test_a_call_ends_within_its_timeout() -> None:
    async def stall(_: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    async def scenario() -> None:
        async with sessions(stall) as opened, asyncio.timeout(2):
            answer = await opened.call("default", "sendMessage", {}, timedelta(seconds=0.3))
            assert isinstance(answer, Break)
            assert not answer.surely_not_sent

    asyncio.run(scenario())


def test_sessions_can_be_closed_twice_and_later_calls_are_certainly_not_sent() -> None:
    async def scenario() -> None:
        async with sessions(answering(lambda: ok(True))) as opened:
            await opened.call("default", "sendMessage", {}, SOON)
            await opened.close()
            await opened.close()
            assert await opened.call("default", "sendMessage", {}, SOON) == Break(
                "the worker is shutting down", surely_not_sent=True, ours=True
            )
        await BotSessions(Settings(_env_file=None)).close()

    asyncio.run(scenario())


def test_a_cancelled_call_leaves_the_sessions_usable() -> None:
    entered = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        if request.match_info["method"] == "sendPhoto":
            entered.set()
            await asyncio.Event().wait()
        return ok(True)

    async def scenario() -> None:
        async with sessions(handler) as opened:
            call = asyncio.create_task(opened.call("default", "sendPhoto", {}, SOON))
            await entered.wait()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert await opened.call("default", "sendMessage", {}, SOON) == Accepted(True)

    asyncio.run(scenario())


def test_the_token_is_neither_in_debug_logs_nor_in_a_repr(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def scenario() -> None:
        async with sessions(answering(lambda: refusal(500, "x"))) as opened:
            await opened.call("default", "sendMessage", {"text": "hi"}, SOON)
            text = repr(opened.__dict__)
        answer = await opened.call("default", "sendMessage", {}, SOON)
        assert TOKEN not in text + repr(answer)

    asyncio.run(scenario())
    assert "123456:[redacted]" in caplog.text
    assert TOKEN not in caplog.text


def test_opening_connects_without_calling_a_method() -> None:
    peers: list[object] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        peers.append(request.transport.get_extra_info("peername"))
        return ok(True)

    async def scenario() -> set[object]:
        async with sessions(handler) as opened:
            await opened.open()
            assert not peers
            request = opened._request
            assert request is not None and request._session is not None
            connector = request._session._open().connector
            assert connector is not None
            ready = connector._conns
            addresses = {handler.transport.get_extra_info("sockname") for (handler, _) in next(iter(ready.values()))}
            await opened.call("default", "sendMessage", {"chat_id": 7, "text": "x"}, SOON)
            return addresses

    ready = asyncio.run(scenario())
    assert len(ready) == 4
    assert ready >= set(peers)


def test_opening_succeeds_without_a_reachable_bot_api() -> None:
    async def scenario() -> None:
        nobody = BotSessions(Settings(_env_file=None, bot_token=TOKEN, telegram_api_url="http://127.0.0.1:1"))
        async with asyncio.timeout(5):
            await nobody.open()
        await nobody.close()

    asyncio.run(scenario())
