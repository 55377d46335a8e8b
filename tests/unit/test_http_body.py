"""Bodies are read within their limits by every reader."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator, Sequence
from types import SimpleNamespace

import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from floodgate.producer import http_body
from floodgate.producer.http_body import BodyTooLargeError, BodyTooSlowError, body_pieces

LAST: Message = {"type": "http.request", "body": b"", "more_body": False}


def piece(body: bytes) -> Message:
    return {"type": "http.request", "body": body, "more_body": True}


def read(messages: Sequence[Message], most_bytes: int = 10, headers: dict[str, str] | None = None) -> bytes:
    """The result of reading these messages; after the last of them, silence."""
    coming: Iterator[Message] = iter(messages)

    async def receive() -> Message:
        await asyncio.sleep(0)  # as from a socket
        message = next(coming, None)
        if message is None:
            await asyncio.Event().wait()
        assert message is not None
        return message

    encoded = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    request = Request({"type": "http", "headers": encoded}, receive)

    async def whole() -> bytes:
        return b"".join([one async for one in body_pieces(request, most_bytes, 0.05)])

    return asyncio.run(whole())


def test_a_body_within_the_limits_is_read_completely() -> None:
    assert read([piece(b"hello"), piece(b"world"), LAST]) == b"helloworld"


def test_a_body_that_grows_beyond_the_limit_is_refused() -> None:
    with pytest.raises(BodyTooLargeError):
        read([piece(b"hello"), piece(b"worlds"), LAST])


@pytest.mark.parametrize("length", ["11", "9" * 5000])
def test_a_body_announced_as_too_large_is_not_read(length: str) -> None:
    with pytest.raises(BodyTooLargeError):
        read([], headers={"content-length": length})


def test_a_silent_body_times_out() -> None:
    with pytest.raises(BodyTooSlowError):
        read([piece(b"hello")])


def test_a_trickling_body_is_refused_although_it_is_never_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count()
    monkeypatch.setattr(http_body, "time", SimpleNamespace(monotonic=lambda: next(clock) / 100))
    with pytest.raises(BodyTooSlowError):
        read([*[piece(b"x")] * 100, LAST], most_bytes=1000)


def test_a_client_that_disconnects_in_the_middle_is_distinguished() -> None:
    with pytest.raises(ClientDisconnect):
        read([piece(b"hello"), {"type": "http.disconnect"}])
