"""What passes through the gateway comes back as the other side gave it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from broker.admission.stores import open_store
from broker.settings import Settings
from producer.gateway.hearing import Hearing
from producer.gateway.passing import Passing

TOKEN = "100200300:" + "A" * 35


async def compressing(request: web.Request) -> web.StreamResponse:
    """As servers do, in the first manner that the caller accepts."""
    answer = web.json_response(
        {"ok": True, "result": {"asked": request.headers.get("Accept-Encoding"), "pad": "x" * 999}}
    )
    answer.enable_compression()
    return answer


async def served(settings: dict[str, Any], passed: list[httpx.Response], **headers: str) -> None:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", compressing)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    store = open_store(Settings(_env_file=None, **settings))
    passing = Passing(
        Settings(_env_file=None, telegram_api_url=f"http://127.0.0.1:{port}", bots={"default": TOKEN}, **settings),
        Hearing(store),
    )

    async def call(request: Request) -> Response:
        return await passing.call(request, "default", "getMe")

    gateway = httpx.ASGITransport(Starlette(routes=[Route("/getMe", call)]))
    try:
        async with httpx.AsyncClient(transport=gateway, base_url="http://gateway") as client:
            passed.append(await client.get("/getMe", headers=headers))
    finally:
        await passing.close()
        await runner.cleanup()
        store.close()


@pytest.mark.parametrize("accepted", ["gzip", "identity", "deflate"])
def test_an_answer_is_readable_by_a_caller_whatever_it_accepts(tmp_path: Path, accepted: str) -> None:
    passed: list[httpx.Response] = []
    asyncio.run(served({"state_url": f"sqlite:///{tmp_path}/state.db"}, passed, **{"Accept-Encoding": accepted}))
    (answer,) = passed
    assert answer.json()["result"]["asked"] == "identity"
    assert "content-encoding" not in answer.headers
