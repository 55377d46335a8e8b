"""A Bot API that answers every call at once and judges nothing: for measuring senders without limits.

``python -m benchmarks.stage.instant_telegram``. The strict fake takes 0.25 ms of CPU for a call, too much beside a fast
worker on two cores; this one parses bytes by hand and takes 0.03 to 0.06. It answers ``/control/stats`` as the fake
does: ``arrived`` counts sends, ``acted`` the different chats among them, which are as many when each chat is sent one
message and none is sent twice. It reads bodies with a Content-Length only; others are refused and the connection ends.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from dataclasses import dataclass, field
from typing import Final

HEAD_END: Final = b"\r\n\r\n"
LONGEST_REQUEST_BYTES: Final = 1_000_000
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
# As JSON, as a form, as a form of parts.
_CHAT: Final = re.compile(rb'chat_id"?(?:=|: *|\r\n\r\n)"?(-?\d+)')
_USER: Final = b'{"id":100200300,"is_bot":true,"first_name":"Instant","username":"instant_bot"}'


@dataclass(slots=True)
class Tally:
    """What came so far. Event loop only. Bound: one number a chat."""

    sends: int = 0
    chats: set[bytes] = field(default_factory=set)

    def answer(self, path: bytes, body: bytes) -> bytes:
        """The body of the answer to one request."""
        if path.endswith(b"/control/stats"):
            return self._stats()
        method = path.rpartition(b"/")[2].lower()
        if method == b"getme":
            return b'{"ok":true,"result":%b}' % _USER
        chat = _CHAT.search(body)
        if chat is None:
            return b'{"ok":true,"result":true}'
        return self._message(chat[1])

    def _message(self, chat: bytes) -> bytes:
        self.sends += 1
        self.chats.add(chat)
        return (
            b'{"ok":true,"result":{"message_id":%d,"date":%d,"from":%b,"chat":{"id":%b,"type":"private",'
            b'"first_name":"User"},"text":"received"}}' % (self.sends, time.time(), _USER, chat)
        )

    def _stats(self) -> bytes:
        counts = dict.fromkeys(
            ("unanswered", "refused_by_limits", "acted_last_second", "most_in_flight_in_a_chat", "pending_updates"), 0
        )
        return json.dumps({"arrived": self.sends, "acted": len(self.chats), "by_code": {}, **counts}).encode()


class Connection(asyncio.Protocol):
    """One connection that is kept alive; requests may come in pieces, or several at once."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._waiting = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        self._waiting += data
        answers = []
        while (request := self._next_request()) is not None:
            answers.append(_response(self._tally.answer(*request)))
        if answers:
            self._transport.write(b"".join(answers))

    def _next_request(self) -> tuple[bytes, bytes] | None:
        """Path and body; None while it is not all here."""
        head, end, _ = self._waiting.partition(HEAD_END)
        if not end:
            return None
        length = _LENGTH.search(head)
        size = int(length[1]) if length else 0
        if size > LONGEST_REQUEST_BYTES or b"chunked" in head:
            self._refuse()
            return None
        start = len(head) + len(HEAD_END)
        if len(self._waiting) < start + size:
            return None
        body = self._waiting[start : start + size]
        self._waiting = self._waiting[start + size :]
        return head.split(b" ", 2)[1], body

    def _refuse(self) -> None:
        assert self._transport is not None
        self._waiting = b""
        self._transport.write(b"HTTP/1.1 411 Length Required\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        self._transport.close()


def _response(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


async def serve() -> None:
    """Answer until killed."""
    tally = Tally()
    server = await asyncio.get_running_loop().create_server(lambda: Connection(tally), "127.0.0.1", 0, backlog=1024)
    print(f"ready at http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve())
