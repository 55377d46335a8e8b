"""Silent, slow and too many connections on real sockets: they end, and all other callers are served meanwhile."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from floodgate.producer.http_protocol import MOST_HEAD_BYTES, bounded_http
from floodgate.producer.listening import listen

MOST = 50
SOON = 10.0
LONG = 600.0
REQUEST = b"GET /now HTTP/1.1\r\nHost: x\r\n\r\n"


class Server:
    """uvicorn with limits. ``/now`` answers at once, ``/held`` when ``release`` is set."""

    def __init__(self, listener: socket.socket, head_seconds: float) -> None:
        self.address = listener.getsockname()[:2]
        self.release = asyncio.Event()
        self.held = asyncio.Semaphore(0)
        routes = [Route("/now", self._now, methods=["GET", "POST"]), Route("/held", self._held)]
        http = bounded_http(MOST, head_seconds)
        config = uvicorn.Config(Starlette(routes=routes), http=http, ws="none", log_config=None, timeout_keep_alive=600)
        self.uvicorn = uvicorn.Server(config)

    async def _now(self, _request: Request) -> PlainTextResponse:
        return PlainTextResponse("here")

    async def _held(self, _request: Request) -> PlainTextResponse:
        self.held.release()
        await self.release.wait()
        return PlainTextResponse("at last")

    async def have_held(self, count: int) -> None:
        for _ in range(count):
            await self.held.acquire()

    async def open(self, said: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(*self.address)
        writer.write(said)
        await writer.drain()
        return reader, writer

    async def ask(self, request: bytes = REQUEST) -> bytes:
        """The first line of an answer on its own connection; empty if that is closed."""
        reader, writer = await self.open(request)
        try:
            return await reader.readline()
        finally:
            writer.close()


@asynccontextmanager
async def serving(head_seconds: float = LONG) -> AsyncIterator[Server]:
    with listen("127.0.0.1", 0, "FLOODGATE_X") as listener:
        server = Server(listener, head_seconds)
        task = asyncio.create_task(server.uvicorn._serve([listener]))
        try:
            yield server
        finally:
            server.release.set()
            server.uvicorn.should_exit = server.uvicorn.force_exit = True
            await task


def run(use: Callable[[Server], Awaitable[None]], head_seconds: float = LONG) -> None:
    async def main() -> None:
        async with asyncio.timeout(SOON * 3), serving(head_seconds) as server:
            await use(server)

    asyncio.run(main())


@pytest.mark.parametrize("said", [b"", b"GET /now HTTP/1.1\r\nHost: x\r\nX-Slow: "])
def test_a_well_behaved_caller_is_served_while_others_hold_every_connection(said: bytes) -> None:
    """Six times as many as allowed, none of which completes a request."""

    async def use(server: Server) -> None:
        holders = [await server.open(said) for _ in range(6 * MOST)]
        assert await server.ask() == b"HTTP/1.1 200 OK\r\n"
        assert await holders[0][0].read() == b"", "the longest idle made room"
        holders[-1][1].write(REQUEST if not said else b"x\r\n\r\n")
        assert await holders[-1][0].readline() == b"HTTP/1.1 200 OK\r\n", "the latest kept its place"

    run(use)


@pytest.mark.parametrize("said", [b"", b"GET /now HTTP/1.1\r\n"])
def test_a_missing_request_head_ends_its_connection(said: bytes) -> None:
    async def use(server: Server) -> None:
        reader, _ = await server.open(said)
        assert await reader.read() == b""

    run(use, head_seconds=0.2)


def test_a_missing_second_request_head_ends_its_connection() -> None:
    async def use(server: Server) -> None:
        reader, writer = await server.open(REQUEST)
        await reader.readuntil(b"here")
        writer.write(b"GET /n")
        assert await reader.read() == b""

    run(use, head_seconds=0.2)


def test_a_trickling_request_head_gets_no_extra_time() -> None:
    async def use(server: Server) -> None:
        reader, writer = await server.open(b"GET /now HTTP/1.1\r\nX-Slow: ")

        async def drip() -> None:
            while True:
                writer.write(b"x")
                await asyncio.sleep(0.01)

        dripping = asyncio.create_task(drip())
        try:
            assert await reader.read() == b""
        except ConnectionResetError:
            pass  # the server closed with a byte unread, which TCP reports as a reset
        finally:
            dripping.cancel()

    run(use, head_seconds=0.2)


def test_a_body_that_is_no_longer_read_does_not_hold_its_connection() -> None:
    async def use(server: Server) -> None:
        reader, writer = await server.open(b"POST /now HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
        assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
        with pytest.raises((ConnectionError, BrokenPipeError)):
            while True:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.01)

    run(use, head_seconds=0.2)


def test_a_request_being_served_is_not_ended_by_time_or_by_others() -> None:
    async def use(server: Server) -> None:
        reader, _ = await server.open(b"GET /held HTTP/1.1\r\nHost: x\r\n\r\n")
        await server.have_held(1)
        silent = [await server.open() for _ in range(2 * MOST)]
        await asyncio.gather(*(each[0].read() for each in silent))  # every one of them was ended
        server.release.set()
        assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"

    run(use, head_seconds=0.2)


def test_a_connection_serves_successive_requests() -> None:
    async def use(server: Server) -> None:
        reader, writer = await server.open()
        for _ in range(10):
            writer.write(REQUEST * 2)
            for _ in range(2):
                assert (await reader.readuntil(b"here")).startswith(b"HTTP/1.1 200 OK")

    run(use, head_seconds=1)


def test_a_request_head_larger_than_the_limit_is_refused() -> None:
    async def use(server: Server) -> None:
        reader, writer = await server.open(b"GET /now HTTP/1.1\r\n")
        for number in range(100):
            writer.write(b"X-%d: %s\r\n" % (number, b"x" * 1000))
        assert (await reader.readline()).startswith(b"HTTP/1.1 431 ")
        await reader.read()
        writer.close()

    run(use)


def test_a_large_body_does_not_count_toward_the_head() -> None:
    async def use(server: Server) -> None:
        body = b"x" * (MOST_HEAD_BYTES * 3)
        reader, writer = await server.open(b"POST /now HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body))
        await reader.readuntil(b"here")
        for start in range(0, len(body), 1000):
            writer.write(body[start : start + 1000])
            await writer.drain()
        writer.write(REQUEST)
        assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        writer.close()

    run(use)


def test_a_protocol_upgrade_is_declined_and_the_connection_continues() -> None:
    """As Java's client does with its first request."""
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n"

    async def use(server: Server) -> None:
        reader, writer = await server.open(
            b"POST /now HTTP/1.1\r\nHost: x\r\n" + offer + b"Content-Length: 5\r\n\r\nhello"
        )
        assert (await reader.readuntil(b"here")).startswith(b"HTTP/1.1 200 ")
        writer.write(b"GET /now HTTP/1.1\r\nHost: x\r\n" + offer + b"\r\n")
        assert (await reader.readuntil(b"here")).startswith(b"HTTP/1.1 200 ")
        writer.write(REQUEST)
        assert (await reader.readuntil(b"here")).startswith(b"HTTP/1.1 200 ")
        writer.close()

    run(use)


def test_when_all_connections_are_busy_the_next_gets_503() -> None:
    async def use(server: Server) -> None:
        at_work = [await server.open(b"GET /held HTTP/1.1\r\nHost: x\r\n\r\n") for _ in range(MOST)]
        await server.have_held(MOST)
        assert await server.ask(b"") == b"HTTP/1.1 503 Service Unavailable\r\n"
        server.release.set()
        for reader, _ in at_work:
            assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
        assert await server.ask() == b"HTTP/1.1 200 OK\r\n"

    run(use)


def test_a_low_limit_on_open_files_lowers_the_number_of_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    raised: list[tuple[int, int]] = []
    monkeypatch.setattr("resource.getrlimit", lambda _kind: (256, 1024))
    monkeypatch.setattr("resource.setrlimit", lambda _kind, limits: raised.append(limits))
    assert bounded_http(12_000).args[0].most == 512
    assert raised == [(1024, 1024)]
    monkeypatch.setattr("resource.getrlimit", lambda _kind: (1024, 100_000))
    assert bounded_http(12_000).args[0].most == 12_000
    assert raised[1:] == [(13_500, 100_000)]
