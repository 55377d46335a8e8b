"""Programs that call a Bot API over HTTP, kept so lean that what they call is measured and not they.

aiohttp's client takes 0.25 ms of CPU for a call, as much as a gateway may; this takes 0.04. It reads answers with a
Content-Length only.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import urlsplit

from benchmarks.stage.pipeline import TOKEN

_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
HEAD_END: Final = b"\r\n\r\n"


class Callers:
    """Any number of calls at once, each on a kept connection of its own. Belongs to one event loop."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._address = parts.hostname, parts.port
        self._host = parts.netloc.encode()
        self._idle: list[_Connection] = []
        self._all: list[_Connection] = []

    async def send(self, chat: int) -> Any:
        """One sendMessage; gives what the Bot API answers.

        Raises:
            RuntimeError: the answer is not ok.
        """
        body = b'{"chat_id":%d,"text":"x"}' % chat
        head = b"POST /bot%b/sendMessage HTTP/1.1\r\nHost: %b\r\nContent-Type: application/json\r\nContent-Length: %d"
        answer = json.loads(await self._ask(head % (TOKEN.encode(), self._host, len(body)) + HEAD_END + body))
        if not answer["ok"]:
            raise RuntimeError(answer["description"])
        return answer

    async def get(self, path: str) -> Any:
        """What a GET answers, from JSON."""
        return json.loads(await self._ask(b"GET %b HTTP/1.1\r\nHost: %b" % (path.encode(), self._host) + HEAD_END))

    async def _ask(self, request: bytes) -> bytes:
        connection = self._idle.pop() if self._idle else await self._connect()
        answer = await connection.ask(request)
        self._idle.append(connection)
        return answer

    async def _connect(self) -> _Connection:
        _, connection = await asyncio.get_running_loop().create_connection(_Connection, *self._address)
        self._all.append(connection)
        return connection

    def close(self) -> None:
        for connection in self._all:
            connection.transport.close()


@asynccontextmanager
async def calling(url: str) -> AsyncIterator[Callers]:
    """Callers who have called before, so that connections and queues are there."""
    callers = Callers(url)
    try:
        for chat in range(16):
            await callers.send(1 + chat)
        yield callers
    finally:
        callers.close()


class _Connection(asyncio.Protocol):
    """One request at a time."""

    transport: Any  # uvloop's is no asyncio.Transport

    def __init__(self) -> None:
        self._received = b""
        self._answer: asyncio.Future[bytes] | None = None

    def ask(self, request: bytes) -> asyncio.Future[bytes]:
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self._answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(HEAD_END)
        length = _LENGTH.search(head) if end else None
        if length is not None and len(body) >= int(length[1]):
            self._received = b""
            if self._answer is not None and not self._answer.done():
                self._answer.set_result(body)

    def connection_lost(self, error: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error or ConnectionResetError("the server ended the connection"))
