"""Malformed input: mutated jobs, and a Bot API that answers arbitrary bytes."""

from __future__ import annotations

import asyncio
import json
import random
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

WORST_VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    2**63,
    10**40,
    1.5,
    float("nan"),
    float("inf"),
    "",
    "\ud800",
    "\x00",
    "@",
    "-100",
    "x" * 5000,
    [],
    [[]] * 20,
    {},
    {"chat_id": {}},
    "send.other.bulk.99",
)


def job_fields(n: int, bot: str) -> dict[str, Any]:
    """A valid job."""
    return {
        "v": 1,
        "id": f"fuzz-{n}",
        "bot": bot,
        "method": "sendMessage",
        "params": {"chat_id": 1000 + n % 50, "text": f"fuzz {n}"},
        "chat": str(1000 + n % 50),
        "created_ms": 1_700_000_000_000,
    }


def envelope(n: int, bot: str) -> dict[str, Any]:
    """The message with the job."""
    return {
        "queue_name": "anything",
        "actor_name": "send",
        "args": [],
        "kwargs": {"job": job_fields(n, bot)},
        "options": {},
        "message_id": f"fuzz-{n}",
        "message_timestamp": 1_700_000_000_000,
    }


def body(draw: random.Random, n: int, bot: str) -> bytes:
    """A message body: sometimes valid, otherwise changed in its bytes, its fields or its shape."""
    message = envelope(n, bot)
    match draw.randrange(10):
        case 0:
            return draw.randbytes(draw.randrange(200))
        case 1 | 2:
            return _changed_bytes(draw, json.dumps(message).encode())
        case 3:
            whole = json.dumps(message).encode()
            return whole[: draw.randrange(len(whole))]
        case 4:
            return json.dumps(draw.choice(WORST_VALUES)).encode()
        case 5:
            return b"[" * draw.choice((10, 1000, 100_000)) + draw.randbytes(3)
        case 6 | 7:
            _change_a_field(draw, message)
        case 8:
            _change_a_field(draw, message["kwargs"]["job"])
        case _:
            _change_a_field(draw, message["kwargs"]["job"]["params"])
    return json.dumps(message).encode()


def _changed_bytes(draw: random.Random, whole: bytes) -> bytes:
    changed = bytearray(whole)
    for _ in range(draw.randrange(1, 6)):
        changed[draw.randrange(len(changed))] = draw.randrange(256)
    return bytes(changed)


def _change_a_field(draw: random.Random, fields: dict[str, Any]) -> None:
    name = draw.choice(
        [*fields, "eta", "expires_ms", "not_before_ms", "attempts", "unsent", "cost", "surprise", "priority"]
    )
    if draw.random() < 0.2:
        fields.pop(name, None)
    else:
        fields[name] = draw.choice((*WORST_VALUES, "sendPhoto", "deleteMessage", "no_such_method", "pay", "bulk"))


class WildServer:
    """A server in its own thread that answers each request with random content. ``answers`` counts them."""

    def __init__(self, seed: int, chance_of_sense: float = 0.3) -> None:
        self.answers = 0
        self.port = 0
        self._draw = random.Random(seed)
        self._sense = chance_of_sense
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="wild-server", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._ending.set)
        self._thread.join(10)

    async def _serve(self) -> None:
        self._loop, self._ending = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._talk, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._ending.wait()
        server.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
                await reader.readexactly(length)
                self.answers += 1
                writer.write(wild_answer(self._draw, self._sense))
                await writer.drain()
                if self._draw.random() < 0.8:
                    break
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return  # the caller has disconnected, as callers of such a server do
        finally:
            writer.close()


def wild_answer(draw: random.Random, sense: float) -> bytes:
    """The bytes of an HTTP answer, or no bytes."""
    if draw.random() < sense:
        return http(200, b'{"ok":true,"result":{"message_id":1,"chat":{"id":5}}}')
    makers: tuple[Callable[[random.Random], bytes], ...] = (
        lambda draw: draw.randbytes(draw.randrange(1, 300)),
        lambda draw: http(_status(draw), json.dumps(draw.choice(WORST_VALUES)).encode()),
        lambda draw: http(_status(draw), draw.randbytes(draw.randrange(300))),
        lambda draw: http(_status(draw), b"<html>" * draw.randrange(1, 2000)),
        lambda draw: http(_status(draw), _refusal(draw)),
        lambda draw: http(_status(draw), _refusal(draw)),
        lambda draw: http(_status(draw), _refusal(draw), **{"Content-Encoding": draw.choice(("gzip", "br", "?"))}),
        lambda draw: http(_status(draw), _refusal(draw), **{"Content-Length": str(draw.choice((0, 5, 99999, -1)))}),
        lambda draw: _chunked(draw, _refusal(draw)),
        lambda draw: b"HTTP/1.1 " + draw.randbytes(20) + b"\r\n\r\n",
        lambda draw: http(302, b"", Location=draw.choice(("/", "http://127.0.0.1:1/", "\x7f", "file:///etc/passwd"))),
        lambda draw: http(200, b"[" * 50_000),
        lambda draw: http(200, b'{"ok":true}'),
        lambda draw: http(200, b'{"ok":false}'),
        lambda draw: http(200, b'{"ok":true,"result":' + b"9" * 6000 + b"}"),
        lambda draw: b"HTTP/1.1 200 OK\r\nX: " + b"x" * 20_000 + b"\r\n\r\n",
        lambda draw: b"",
    )
    return draw.choice(makers)(draw)


def http(status: int, content: bytes, **headers: str) -> bytes:
    given = {"Content-Type": "application/json", "Content-Length": str(len(content)), **headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in given.items())
    return f"HTTP/1.1 {status} Whatever\r\n{lines}\r\n".encode() + content


def _status(draw: random.Random) -> int:
    return draw.choice(
        (100, 200, 201, 204, 206, 301, 304, 400, 401, 403, 404, 409, 413, 418, 429, 499, 500, 502, 599, 999)
    )


def _refusal(draw: random.Random) -> bytes:
    # No `retry_after` of hours: the worker would wait for as long as the server asks, and so would the run.
    parameters = {
        "retry_after": draw.choice((None, 0, 1, "1", -5, True, 0.5, [], {})),
        "migrate_to_chat_id": draw.choice((None, None, None, None, -1001234567890, "x", [], 0, -(2**70))),
    }
    fields = {
        "ok": draw.choice((False, False, False, True, None, 0, "false")),
        "error_code": draw.choice((400, 400, 403, 404, 429, 500, None, "400", -1, 2**70, [])),
        "description": draw.choice((
            "Bad Request: chat not found", "Bad Request: message is not modified", "Forbidden: bot was kicked",
            "Too Many Requests: retry after 1", "Bad Request: group send failed", "", None, 5, "\x00", "ü" * 3000, [],
        )),
        "parameters": draw.choice((parameters, parameters, None, [], "x")),
    }  # fmt: skip
    return json.dumps(fields).encode()


def _chunked(draw: random.Random, content: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    size = draw.choice((b"%x" % len(content), b"ffffff", b"-1", b"zz", b"%x" % (len(content) // 2)))
    return head + size + b"\r\n" + content + b"\r\n" + draw.choice((b"0\r\n\r\n", b"", b"\r\n"))
