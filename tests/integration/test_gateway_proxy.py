"""Calls that pass through the gateway return unchanged."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from aiohttp import web
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from floodgate.broker.settings.model import Settings
from floodgate.broker.state.stores import open_store
from floodgate.producer.gateway.answers import RefusalError
from floodgate.producer.gateway.proxy import Proxy
from floodgate.producer.gateway.request_body import read

TOKEN = "100200300:" + "A" * 35


async def echo(request: web.Request) -> web.StreamResponse:
    """Echoes the request, compressed as servers do it, with the first encoding that the caller accepts."""
    body = await request.text()
    asked = {
        "accepts": request.headers.get("Accept-Encoding"),
        "path": request.raw_path,
        "body": body,
        "pad": "x" * 999,
    }
    answer = web.json_response({"ok": True, "result": asked})
    answer.enable_compression()
    return answer


async def passed(state_url: str, path: str, **headers: str) -> httpx.Response:
    """The answer a caller gets through the gateway."""
    async with calling(state_url) as client:
        return await client.get(path, headers=headers)


@asynccontextmanager
async def calling(state_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """A caller of a gateway in front of an echo server."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", echo)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    settings = Settings(_env_file=None, telegram_api_url=url, bots={"default": TOKEN}, state_url=state_url)  # type: ignore[call-arg]
    store = open_store(settings)
    proxy = Proxy(settings, store)

    async def call(request: Request) -> Response:
        return await proxy.call("default", "getMe", await read(request, settings.gateway))

    async def file(request: Request) -> Response:
        return await proxy.file(request, "default", request.path_params["path"])

    gateway = httpx.ASGITransport(
        Starlette(routes=[Route("/getMe", call, methods=["GET", "POST"]), Route("/file/{path:path}", file)])
    )
    try:
        async with httpx.AsyncClient(transport=gateway, base_url="http://gateway") as client:
            yield client
    finally:
        await proxy.close()
        await runner.cleanup()
        store.close()


@pytest.mark.parametrize("accepted", ["gzip", "identity", "deflate"])
def test_an_answer_is_readable_with_any_accept_encoding(tmp_path: Path, accepted: str) -> None:
    headers = {"Accept-Encoding": accepted}
    answer = asyncio.run(passed(f"sqlite:///{tmp_path}/state.db", "/getMe", **headers))
    assert answer.json()["result"]["accepts"] == "identity"
    assert "content-encoding" not in answer.headers


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_request_with_a_body_leaves_nothing_on_the_connection(tmp_path: Path, method: str) -> None:
    """pyTelegramBotAPI polls with a GET that has a body. A length without its bytes made the server read the next
    request in their place, including the token."""

    async def call() -> list[str]:
        async with calling(f"sqlite:///{tmp_path}/state.db") as client, asyncio.timeout(10):
            first = await client.request(method, "/getMe", json={"timeout": 1})
            second = await client.get("/getMe")
            return [answer.json()["result"]["body"] for answer in (first, second)]

    assert asyncio.run(call()) == ["timeout=1", ""]


def test_text_that_is_not_unicode_is_refused(tmp_path: Path) -> None:
    async def call() -> None:
        async with calling(f"sqlite:///{tmp_path}/state.db") as client:
            await client.post("/getMe", content=b'{"text":"\\ud800"}')

    with pytest.raises(RefusalError, match="text must be encoded in UTF-8"):
        asyncio.run(call())


@pytest.mark.parametrize(
    "name", ["photos/file_1.jpg", "a%20b", "what%3Fever", "%7B0%7D", "%7B1%7D", "100%25", "%C3%BC"]
)
def test_a_file_path_arrives_unchanged(tmp_path: Path, name: str) -> None:
    answer = asyncio.run(passed(f"sqlite:///{tmp_path}/state.db", f"/file/{name}"))
    assert answer.json()["result"]["path"] == f"/file/bot{TOKEN}/{name}"


@pytest.mark.parametrize("path", ["/file/../../bot1:x/getMe", "/file/a/..%2F../b"])
def test_a_file_path_cannot_leave_the_bots_files(tmp_path: Path, path: str) -> None:
    with pytest.raises(RefusalError, match="Not Found"):
        asyncio.run(passed(f"sqlite:///{tmp_path}/state.db", path.replace("..", "%2E%2E")))
