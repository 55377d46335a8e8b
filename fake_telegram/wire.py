"""The HTTP server: reads requests and writes replies.

It serves the paths ``/bot<token>/<method>``, ``/file/bot<token>/<path>`` and ``/control/…``. A token may end in
``/test``, as in Telegram's test environment. For speed, it uses
aiohttp's low-level server without routes or middlewares, because benchmarks measure against it. If a caller
disconnects, its pending wait is cancelled, but never a call that has taken effect.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any, Final
from urllib.parse import unquote

from aiohttp import ClientPayloadError, web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestHandler
from aiohttp.web_request import FileField

from floodgate.fake_telegram.arrivals import Arrival
from floodgate.fake_telegram.calls import EMPTY, Call, CallSource, FormUpload, decode_form, kept
from floodgate.fake_telegram.control_api import ControlApi
from floodgate.fake_telegram.errors import ApiError, bad_request, not_found
from floodgate.fake_telegram.exchange import CallExchange, Reply, ReplyKind, html_error, refuse
from floodgate.fake_telegram.methods.receiving import WAITING
from floodgate.fake_telegram.webhooks import Webhooks

LONGEST_BODY_BYTES: Final = 50 * 1024 * 1024 + 64 * 1024  # a file of 50 MB and the form around it
LONGEST_STALL_SECONDS: Final = 600.0


class Wire:
    """Answers requests with the help of the exchange. Used by the event loop only."""

    def __init__(self, exchange: CallExchange, webhooks: Webhooks, control: ControlApi) -> None:
        self._exchange = exchange
        self._webhooks = webhooks
        self._control = control
        self._stopping = asyncio.Event()

    def server(self) -> web.Server:
        """Return the aiohttp server."""
        return web.Server(
            self.handle,
            request_factory=_request,
            handler_cancellation=True,
            access_log=None,
            keepalive_timeout=75.0,
        )

    def stop_waiting(self) -> None:
        """End all stalls and long polls."""
        self._stopping.set()
        for inbox in self._exchange.world.receiving.all():
            inbox.interrupt(None)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request."""
        path = request.path
        if path.startswith("/bot"):
            token, name = _token_and_rest(path.removeprefix("/bot"))
            return await self._call(request, token, name.lower())
        if path.startswith("/control/"):
            return await self._control.handle(request, path.removeprefix("/control/"))
        if path.startswith("/file/bot"):
            token, name = _token_and_rest(path.removeprefix("/file/bot"))
            return self._file(token, unquote(name))
        return _response(refuse(not_found()))

    async def _call(self, request: web.BaseRequest, token: str, name: str) -> web.StreamResponse:
        try:
            bot_id = self._exchange.world.bots.authenticate(token)
        except ApiError as error:
            return _response(refuse(error))
        if (request.content_length or 0) > LONGEST_BODY_BYTES:
            return self._too_large(bot_id, name)
        try:
            call = await read_call(request, bot_id, name)
        except web.HTTPRequestEntityTooLarge:
            return self._too_large(bot_id, name)
        except ApiError as error:
            return self._refused(bot_id, name, refuse(error))
        return await self._answer(request, call)

    async def _answer(self, request: web.BaseRequest, call: Call) -> web.StreamResponse:
        arrivals = (
            self._exchange.arrivals
        )  # a reset in the meantime replaces the record; this call is only in the old one
        arrival = self._exchange.arrive(call.bot_id, call.method, call.source, call.params.get("chat_id"))
        code: int | None = None
        try:
            reply = await self._perform(call, arrival)
            if reply.held_seconds > 0:
                await asyncio.sleep(reply.held_seconds)
            if reply.kind is ReplyKind.ANSWER:
                code = reply.code
                return _response(reply)
            return await self._hang_up(request, reply.kind)
        finally:
            arrivals.close(arrival, code)

    async def _perform(self, call: Call, arrival: Arrival) -> Reply:
        if call.method in WAITING:
            return await self._exchange.perform_waiting(call, arrival, self._webhooks)
        return self._exchange.perform(call, arrival)

    async def _hang_up(self, request: web.BaseRequest, kind: ReplyKind) -> web.StreamResponse:
        if kind is ReplyKind.STALL:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), LONGEST_STALL_SECONDS)
        if request.transport is not None:
            request.transport.abort()
        return web.Response()  # never sent: aiohttp requires a response even for a closed connection

    def _too_large(self, bot_id: int, name: str) -> web.Response:
        response = self._refused(bot_id, name, html_error(413))
        response.force_close()
        return response

    def _refused(self, bot_id: int, name: str, reply: Reply) -> web.Response:
        self._exchange.arrivals.close(self._exchange.arrive(bot_id, name, EMPTY), reply.code)
        return _response(reply)

    def _file(self, token: str, path: str) -> web.Response:
        try:
            bot_id = self._exchange.world.bots.authenticate(token)
        except ApiError as error:
            return _response(refuse(error))
        content = self._exchange.world.files.content(bot_id, path)
        if content is None:
            return _response(refuse(not_found()))
        return web.Response(body=content, content_type="application/octet-stream")


async def read_call(request: web.BaseRequest, bot_id: int, name: str) -> Call:
    """Decode the call in a request's query string and body.

    Raises:
        ApiError: The body does not match its content type.
    """
    query = request.query_string
    if request.content_type == "multipart/form-data":
        params, uploads = await _read_multipart(request)
        params = {**_query(query), **params}
        return Call(bot_id, name, params, uploads, _source_of_form(params, uploads))
    body = await request.read()
    if not body:
        source = CallSource("form", query.encode())
    elif request.content_type == "application/json":
        source = CallSource("json", body)
    elif request.content_type == "application/x-www-form-urlencoded":
        source = CallSource("form", body)
    else:
        source = EMPTY  # Telegram ignores a body of any other type
    params = source.params()
    if query and body:
        params = {**_query(query), **params}
        source = CallSource("json", json.dumps(params).encode())
    return Call(bot_id, name, params, source=kept(source))


def _token_and_rest(path: str) -> tuple[str, str]:
    """Split a path after ``bot``. A token of the test environment ends in ``/test``."""
    token, _, rest = path.partition("/")
    environment, slash, name = rest.partition("/")
    return (f"{token}/{environment}", name) if slash and environment == "test" else (token, rest)


def _query(query: str) -> dict[str, Any]:
    return decode_form(query.encode()) if query else {}


async def _read_multipart(request: web.BaseRequest) -> tuple[dict[str, Any], dict[str, FormUpload]]:
    try:
        form = await request.post()
    except (ValueError, AssertionError, HttpProcessingError, ClientPayloadError) as error:
        raise bad_request("can't parse multipart form") from error
    params: dict[str, Any] = {}
    uploads: dict[str, FormUpload] = {}
    for name, value in form.items():
        if isinstance(value, FileField):
            with value.file as file:
                uploads[name] = FormUpload(value.filename, value.content_type, file.read())
        else:
            params[name] = value if isinstance(value, str) else bytes(value).decode("utf-8", "replace")
    return params, uploads


def _source_of_form(params: dict[str, Any], uploads: dict[str, FormUpload]) -> CallSource:
    files = {name: {"name": upload.name, "size": len(upload.content)} for name, upload in uploads.items()}
    return kept(CallSource("json", json.dumps({**params, **files}).encode()))


def _response(reply: Reply) -> web.Response:
    headers = {"Retry-After": str(reply.retry_after)} if reply.retry_after is not None else None
    return web.Response(body=reply.body, status=reply.code, content_type=reply.content_type, headers=headers)


def _request(
    message: RawRequestMessage,
    payload: StreamReader,
    protocol: RequestHandler,
    writer: Any,
    task: asyncio.Task[None],
) -> web.BaseRequest:
    loop = asyncio.get_running_loop()
    return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=LONGEST_BODY_BYTES)
