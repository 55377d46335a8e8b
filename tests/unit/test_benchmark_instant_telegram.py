"""The Bot API of benchmarks without limits: real bytes over a real socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from benchmarks.stage.instant_telegram import Connection, Tally
from floodgate.fake_telegram.control import ControlClient, LiveCounters


@asynccontextmanager
async def served() -> AsyncIterator[int]:
    """The port it listens on."""
    tally = Tally()
    server = await asyncio.get_running_loop().create_server(lambda: Connection(tally), "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def request(path: str, body: bytes) -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


async def answers(reader: asyncio.StreamReader, count: int) -> list[Any]:
    found = []
    for _ in range(count):
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.partition(b"Content-Length: ")[2].split(b"\r\n")[0])
        found.append(json.loads(await reader.readexactly(length)))
    return found


async def post(port: int, method: str, **how: Any) -> Any:
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"http://127.0.0.1:{port}/bot1:A/{method}", **how) as response,
    ):
        return await response.json()


@pytest.mark.parametrize(
    "body",
    [
        {"json": {"text": "hi", "chat_id": -100}},
        {"data": {"chat_id": "-100", "text": "hi"}},
        {"data": aiohttp.FormData({"chat_id": "-100"}, default_to_multipart=True)},
        {"json": {"chat_id": "-100"}},
    ],
    ids=["json", "form", "form of parts", "json text"],
)
def test_a_message_is_answered_with_its_chat_for_every_body_format(body: dict[str, Any]) -> None:
    async def send() -> Any:
        async with served() as port:
            return await post(port, "sendMessage", **body)

    answer = asyncio.run(send())
    assert answer["ok"]
    assert answer["result"]["chat"]["id"] == -100


def test_split_and_pipelined_requests_are_answered_in_order() -> None:
    stream = b"".join(request("/bot1:A/sendMessage", b'{"chat_id": %d}' % chat) for chat in (1, 2, 3))

    async def send() -> list[Any]:
        async with served() as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for start in range(0, len(stream), 7):
                writer.write(stream[start : start + 7])
                await asyncio.sleep(0)
            found = await answers(reader, 3)
            writer.write(stream)
            found += await answers(reader, 3)
            writer.close()
            return found

    assert [answer["result"]["chat"]["id"] for answer in asyncio.run(send())] == [1, 2, 3, 1, 2, 3]


def test_the_counts_distinguish_sends_and_chats() -> None:
    async def send() -> LiveCounters:
        async with served() as port:
            for chat in (1, 2, 2):
                await post(port, "sendMessage", json={"chat_id": chat})
            await post(port, "getMe")
            return await asyncio.to_thread(ControlClient(f"http://127.0.0.1:{port}").stats)

    counts = asyncio.run(send())
    assert (counts.arrived, counts.acted) == (3, 2)


def test_a_body_of_unknown_length_is_refused() -> None:
    async def send() -> bytes:
        async with served() as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"POST /bot1:A/sendMessage HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
            answer = await reader.read()
            writer.close()
            return answer

    assert asyncio.run(send()).startswith(b"HTTP/1.1 411 ")
