"""Reading a request's body with a bound on its size, on silence and on a trickle."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Final

from starlette.requests import ClientDisconnect, Request

# The rate that a body must keep once its first ``silence_seconds`` are over.
SLOWEST_BYTES_PER_SECOND: Final = 8 * 1024


class BodyTooLargeError(Exception):
    """The body is larger than the bound."""


class BodyTooSlowError(Exception):
    """The body comes too slowly."""


async def body_pieces(request: Request, most_bytes: int, silence_seconds: float) -> AsyncIterator[bytes]:
    """The body in pieces.

    Raises:
        BodyTooLargeError: it has, or is announced to have, more than ``most_bytes``.
        BodyTooSlowError: nothing came for ``silence_seconds``, or too little in all.
        ClientDisconnect: the client left in the middle.
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
