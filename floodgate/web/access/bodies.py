"""Reads the form of a POST, bounded in size and time, and hands it on to the page that is asked for."""

from __future__ import annotations

import asyncio
from typing import Final
from urllib.parse import parse_qsl

from starlette.datastructures import FormData, Headers
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope

MOST_BYTES: Final = 128 * 1024
MOST_FIELDS: Final = 2000
READ_SECONDS: Final = 10.0
FORM: Final = "application/x-www-form-urlencoded"


class FormError(Exception):
    """A body is not a form that is accepted."""

    def __init__(self, status_code: int, what: str) -> None:
        super().__init__(what)
        self.status_code = status_code


async def read_form(scope: Scope, receive: Receive) -> tuple[FormData, Receive]:
    """Read a form; return it, and a ``receive`` that delivers the same body once more.

    Raises:
        FormError: the body is no form, too large, or too slow.
        ClientDisconnect: the client has gone.
    """
    if Headers(scope=scope).get("content-type", "").partition(";")[0].strip().lower() != FORM:
        raise FormError(415, f"Send a form of the type {FORM}.")
    try:
        async with asyncio.timeout(READ_SECONDS):
            body = await _read(receive)
    except TimeoutError:
        raise FormError(408, f"The form did not arrive within {READ_SECONDS:.0f} seconds.") from None
    try:
        fields = parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=MOST_FIELDS)
    except ValueError:  # not ASCII, or too many fields
        raise FormError(400, f"The form has more than {MOST_FIELDS} fields, or is malformed.") from None
    return FormData([*fields]), _once_more(body, receive)


async def _read(receive: Receive) -> bytes:
    body = bytearray()
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > MOST_BYTES:
            raise FormError(413, f"The form is larger than {MOST_BYTES // 1024} KiB.")
    return bytes(body)


def _once_more(body: bytes, receive: Receive) -> Receive:
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def deliver() -> Message:
        return waiting.pop() if waiting else await receive()

    return deliver
