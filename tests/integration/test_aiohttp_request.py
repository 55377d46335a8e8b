"""The aiohttp request against well-behaved and misbehaving servers, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from pydantic import SecretStr
from telegram import Bot, InputMediaDocument
from telegram.error import BadRequest, NetworkError, RetryAfter, TimedOut
from telegram.request import BaseRequest

from floodgate.actors.request import AiohttpRequest
from floodgate.broker.errors import CutOffError, NotSentError

TOKEN = "123456:" + "A" * 35
OK = b'{"ok":true,"result":{"message_id":5}}'

Script = Callable[["Wire", bytes, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Wire:
    """A server that reads whole requests and treats each as its script says."""

    script: Script
    requests: list[bytes] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    connections: int = 0
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/bot{TOKEN}/sendMessage"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                body = await reader.readexactly(int(lengths[0].split(b":")[1])) if lengths else b""
                self.requests.append(head + body)
                self.arrived.set()
                await self.script(self, body, writer)
        writer.close()


@contextlib.asynccontextmanager
async def wire(script: Script, tls: ssl.SSLContext | None = None) -> AsyncIterator[Wire]:
    served = Wire(script)
    server = await asyncio.start_server(served.serve, "127.0.0.1", 0, ssl=tls)
    served.port = server.sockets[0].getsockname()[1]
    try:
        yield served
    finally:
        server.close()


def http(status: str, body: bytes, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def answer(_: Wire, __: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(http("200 OK", OK))


async def stall(_: Wire, __: bytes, ___: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def hang_up(_: Wire, __: bytes, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def reset(_: Wire, __: bytes, writer: asyncio.StreamWriter) -> None:
    raw = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    writer.transport.abort()


async def stop_in_the_body(_: Wire, __: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(http("200 OK", OK)[:-5])
    writer.close()


async def talk_nonsense(_: Wire, __: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(b"\x00\xff no HTTP \r\n\r\n")
    writer.close()


async def trickle(_: Wire, __: bytes, writer: asyncio.StreamWriter) -> None:
    """Never silent for as long as the read timeout, and never finished."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while not writer.is_closing():
        writer.write(b" ")
        await asyncio.sleep(0.02)


async def post(request: AiohttpRequest, url: str, **timeouts: Any) -> tuple[int, bytes]:
    return await request.do_request(url, "POST", None, **timeouts)


async def fault_of(url: str, request: AiohttpRequest | None = None, **timeouts: Any) -> NetworkError:
    """Returns the exception of a POST to ``url``, having checked that it does not contain the token."""
    request = request or AiohttpRequest()
    async with request:
        with pytest.raises(NetworkError) as caught:
            await post(request, url, **timeouts)
    text = "".join(traceback.format_exception(caught.value)) + repr(caught.value.__context__)
    assert TOKEN not in text
    assert caught.value.__context__ is None
    return caught.value


@pytest.mark.parametrize("script", [hang_up, reset, stop_in_the_body, talk_nonsense])
def test_a_call_lost_in_flight_may_have_acted_and_is_made_once(script: Script) -> None:
    async def scenario() -> None:
        async with wire(script) as server:
            fault = await fault_of(server.url)
            assert isinstance(fault.__cause__, CutOffError)
            assert len(server.requests) == 1

    asyncio.run(scenario())


@pytest.mark.parametrize("script", [stall, trickle])
def test_a_silent_or_trickling_server_is_disconnected_at_the_timeout(script: Script) -> None:
    async def scenario() -> None:
        async with wire(script) as server, asyncio.timeout(5):
            fault = await fault_of(server.url, read_timeout=0.2, write_timeout=0, connect_timeout=0.1, pool_timeout=0)
            assert isinstance(fault, TimedOut)
            assert isinstance(fault.__cause__, CutOffError)

    asyncio.run(scenario())


def test_a_refused_connection_means_certainly_not_sent() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/bot{TOKEN}/sendMessage"
        fault = asyncio.run(fault_of(url))
    assert isinstance(fault.__cause__, NotSentError)
    assert not isinstance(fault, TimedOut)


@pytest.mark.parametrize(
    "url", ["http://no-such-host.invalid/bot%s/getMe", "http:///bot%s/getMe", "ftp://127.0.0.1/bot%s/getMe"]
)
def test_an_unresolvable_address_means_certainly_not_sent(url: str) -> None:
    assert isinstance(asyncio.run(fault_of(url % TOKEN)).__cause__, NotSentError)


def test_a_connection_that_is_never_made_means_certainly_not_sent() -> None:
    async def scenario() -> None:
        with socket.socket() as deaf, contextlib.ExitStack() as queued:
            deaf.bind(("127.0.0.1", 0))
            deaf.listen(0)
            for _ in range(4):  # fills the backlog, so that the kernel accepts no further connection
                client = queued.enter_context(socket.socket())
                client.setblocking(False)
                client.connect_ex(deaf.getsockname())
            url = f"http://127.0.0.1:{deaf.getsockname()[1]}/bot{TOKEN}/sendMessage"
            fault = await fault_of(url, connect_timeout=0.2, pool_timeout=0.1)
            assert isinstance(fault, TimedOut)
            assert isinstance(fault.__cause__, NotSentError)

    asyncio.run(scenario())


def test_a_timeout_waiting_for_the_pool_means_certainly_not_sent() -> None:
    async def scenario() -> None:
        async with wire(stall) as server, AiohttpRequest(connections=1) as request:
            first = asyncio.create_task(post(request, server.url))
            await server.arrived.wait()
            with pytest.raises(TimedOut) as caught:
                await post(request, server.url, connect_timeout=0.1, pool_timeout=0.1)
            assert isinstance(caught.value.__cause__, NotSentError)
            assert server.connections == 1
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)

    asyncio.run(scenario())


def test_an_untrusted_certificate_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    (tmp_path / "pair.pem").write_text(SELF_SIGNED)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "pair.pem")

    async def scenario() -> None:
        async with wire(answer, tls) as server:
            fault = await fault_of(server.url.replace("http:", "https:"))
            assert isinstance(fault.__cause__, NotSentError)
            assert "Certificate" in str(fault)
            assert server.requests == []

    asyncio.run(scenario())


def test_a_kept_alive_connection_is_reused_and_losing_it_resends_nothing() -> None:
    async def script(server: Wire, body: bytes, writer: asyncio.StreamWriter) -> None:
        await (answer if len(server.requests) == 1 else hang_up)(server, body, writer)

    async def scenario() -> None:
        async with wire(script) as server, AiohttpRequest() as request:
            assert await post(request, server.url) == (200, OK)
            with pytest.raises(NetworkError) as caught:
                await post(request, server.url)
            assert isinstance(caught.value.__cause__, CutOffError)
            assert server.connections == 1
            assert len(server.requests) == 2

    asyncio.run(scenario())


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary Redirect"])
def test_a_redirect_is_returned_and_not_followed(status: str) -> None:
    async def script(server: Wire, _: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(http(status, b"", f"Location: {server.url}"))

    async def scenario() -> None:
        async with wire(script) as server, AiohttpRequest() as request:
            assert (await post(request, server.url))[0] == int(status[:3])
            assert len(server.requests) == 1

    asyncio.run(scenario())


def test_a_call_goes_through_a_proxy_whose_refusal_means_not_sent() -> None:
    async def refuse(_: Wire, __: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(http("407 Proxy Authentication Required", b""))

    async def scenario() -> None:
        async with wire(answer) as server:
            proxy = AiohttpRequest(proxy=SecretStr(f"http://user:secret@127.0.0.1:{server.port}"))
            async with proxy:
                assert await post(proxy, f"http://telegram.invalid/bot{TOKEN}/getMe") == (200, OK)
            assert server.requests[0].startswith(b"POST http://telegram.invalid/bot")
            assert b"Proxy-Authorization: Basic" in server.requests[0]
        async with wire(refuse) as server:
            proxy = AiohttpRequest(proxy=SecretStr(f"http://user:secret@127.0.0.1:{server.port}"))
            fault = await fault_of(f"https://telegram.invalid/bot{TOKEN}/getMe", proxy)
            assert isinstance(fault.__cause__, NotSentError)
            assert "secret" not in "".join(traceback.format_exception(fault))

    asyncio.run(scenario())


def test_starting_and_stopping_twice_does_nothing() -> None:
    async def scenario() -> None:
        request = AiohttpRequest(read_timeout=7)
        assert request.read_timeout == 7
        await request.shutdown()
        await request.initialize()
        await request.initialize()
        await request.shutdown()
        await request.shutdown()
        with pytest.raises(NetworkError) as caught:
            await post(request, "http://127.0.0.1:1/")
        assert isinstance(caught.value.__cause__, NotSentError)
        async with wire(answer) as server, request:  # it can also be opened again
            assert await post(request, server.url) == (200, OK)

    asyncio.run(scenario())


def test_stopping_aborts_calls_in_flight() -> None:
    async def scenario() -> None:
        async with wire(stall) as server, asyncio.timeout(5):
            request = AiohttpRequest()
            await request.initialize()
            call = asyncio.create_task(post(request, server.url, read_timeout=60))
            await server.arrived.wait()
            await request.shutdown()
            with pytest.raises(NetworkError) as caught:
                await call
            assert isinstance(caught.value.__cause__, CutOffError)

    asyncio.run(scenario())


@contextlib.asynccontextmanager
async def bot_at(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[Bot]:
    """python-telegram-bot itself, on our request, at a server with this handler."""
    app = web.Application()
    app.router.add_post("/bot{token}/{method}", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    request: BaseRequest = AiohttpRequest()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/bot"
    try:
        async with request:
            yield Bot(TOKEN, base_url=url, request=request, get_updates_request=request)
    finally:
        await runner.cleanup()


MESSAGE = {"message_id": 5, "date": 0, "chat": {"id": 7, "type": "private"}}


def test_parameters_arrive_as_json_with_nested_values_and_any_text() -> None:
    seen: list[Any] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        seen.append((request.content_type, await request.json()))
        return web.json_response({"ok": True, "result": MESSAGE})

    async def scenario() -> None:
        async with bot_at(handler) as bot:
            await bot.send_message(7, "Grüße 🎉 \ud800", api_kwargs={"reply_markup": {"inline_keyboard": [[]]}})

    asyncio.run(scenario())
    kind, params = seen[0]
    assert kind == "application/json"
    assert params == {"chat_id": 7, "text": "Grüße 🎉 \ud800", "reply_markup": {"inline_keyboard": [[]]}}


def test_files_arrive_as_multipart_with_their_names() -> None:
    files: dict[str, tuple[str, bytes]] = {}
    fields: dict[str, str] = {}

    async def handler(request: web.Request) -> web.StreamResponse:
        for name, part in (await request.post()).items():
            if isinstance(part, web.FileField):
                files[name] = (part.filename, part.file.read())
            else:
                fields[name] = str(part)
        single = request.match_info["method"] == "sendDocument"
        return web.json_response({"ok": True, "result": MESSAGE if single else [MESSAGE]})

    async def scenario(handle_to: Path) -> None:
        async with bot_at(handler) as bot:
            with handle_to.open("rb") as handle:
                await bot.send_document(7, handle, filename="Отчёт ü.txt", caption="see")
            await bot.send_media_group(7, [InputMediaDocument(b"one"), InputMediaDocument(b"two")])

    handle_to = Path(__file__)
    asyncio.run(scenario(handle_to))
    assert fields["chat_id"] == "7"
    assert fields["caption"] == "see"
    assert files.pop("document") == ("Отчёт ü.txt", handle_to.read_bytes())
    media = json.loads(fields["media"])
    assert [files[item["media"].removeprefix("attach://")][1] for item in media] == [b"one", b"two"]


@pytest.mark.filterwarnings("ignore:.*retry_after:telegram.warnings.PTBDeprecationWarning")
def test_the_librarys_errors_are_the_same_as_with_its_own_request() -> None:
    answers = {
        "1": web.json_response(
            {"ok": False, "error_code": 400, "description": "Bad Request: chat not found"}, status=400
        ),
        "2": web.json_response(
            {"ok": False, "error_code": 429, "description": "x", "parameters": {"retry_after": 3}}, status=429
        ),
        "3": web.Response(status=502, text="<html>"),
    }

    async def handler(request: web.Request) -> web.StreamResponse:
        return answers[str((await request.json())["chat_id"])]

    async def scenario() -> None:
        async with bot_at(handler) as bot:
            for chat, error in ((1, BadRequest), (2, RetryAfter), (3, NetworkError)):
                with pytest.raises(error):
                    await bot.send_message(chat, "x")

    asyncio.run(scenario())


# For 127.0.0.1; not used outside this test.
SELF_SIGNED = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgJxxE8fnjQICinViB
wWHs63SNzN3jMjuD/mXgycnl+iyhRANCAATIRN9AYx8JDFiuLXKsUOFX4Rsr66ta
Or8Tf29+ShXrJYoC3IsAZFvIYf1C9tCQjmLiEjjXJ/b8oq3D3AKzqRmo
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBkDCCATagAwIBAgIUWeaYJ7mFr2z6Td26AyzGgeKTYVgwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyMDIxMjY1M1oYDzIxMjYxMDI3
MjEyNjUzWjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAATIRN9AYx8JDFiuLXKsUOFX4Rsr66taOr8Tf29+ShXrJYoC3IsAZFvI
Yf1C9tCQjmLiEjjXJ/b8oq3D3AKzqRmoo2QwYjAdBgNVHQ4EFgQU/FoMgmJn6ZbC
d58+G7vOYGBTt9swHwYDVR0jBBgwFoAU/FoMgmJn6ZbCd58+G7vOYGBTt9swDwYD
VR0TAQH/BAUwAwEB/zAPBgNVHREECDAGhwR/AAABMAoGCCqGSM49BAMCA0gAMEUC
IH1Y1plv7Avr8YI9yzc9T/SkSJEG9EdnPstf1/2h4q4qAiEAgsgycH/ZRkNJ5XBN
20GsAm4lTT/sF8vsMmqgBX/iY6s=
-----END CERTIFICATE-----
"""
