"""Reads a request body with bounds on its size, on idle time and on its speed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Final

from starlette.requests import ClientDisconnect, Request

# The minimum average speed of a body that takes longer than ``silence_seconds``.
SLOWEST_BYTES_PER_SECOND: Final = 8 * 1024


class BodyTooLargeError(Exception):
    """The body is larger than the bound."""


class BodyTooSlowError(Exception):
    """The body arrives too slowly."""


async def body_pieces(request: Request, most_bytes: int, silence_seconds: float) -> AsyncIterator[bytes]:
    """Yield the body in pieces.

    Raises:
        BodyTooLargeError: it is, or is announced to be, larger than ``most_bytes``.
        BodyTooSlowError: nothing arrived for ``silence_seconds``, or the body is below the minimum speed.
        ClientDisconnect: the client disconnected before the body was complete.
    """
    announced = request.headers.get("content-length", "0")
    if announced.isdecimal() and int(announced[:20]) > most_bytes:
        raise BodyTooLargeError
    started, size, more = time.monotonic(), 0, True
    while more:
        allowed = started + silence_seconds + size / SLOWEST_BYTES_PER_SECOND - time.monotonic()
        try:
            async with asyncio.timeout(min(silence_seconds, max(0.0, allowed))):
                message = await request.receive()
        except TimeoutError:
            raise BodyTooSlowError from None
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        piece, more = message.get("body", b""), message.get("more_body", False)
        size += len(piece)
        if size > most_bytes:
            raise BodyTooLargeError
        yield piece
