"""Passes reads, answers to queries and downloads through to Telegram, with the bot's real token.

A response's body is streamed, so a download of gigabytes needs one buffer. The caller gets Telegram's status, the
headers that matter and the bytes unchanged. The gateway only answers for itself when Telegram cannot be reached.

Calls are parsed and written anew, so that the Bot API gets exactly what was checked, and none of the gateway's own
options: a local Bot API server reads files of its own disk for anyone who names one.

Updates are read on their way (:mod:`floodgate.producer.gateway.reachability`), because a bot can write to those who
write to it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from typing import Any, Final
from urllib.parse import quote

import aiohttp
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from yarl import URL

from floodgate.broker.messages.local_files import check_params
from floodgate.broker.process.telegram_session import TelegramSession
from floodgate.broker.settings.model import Settings
from floodgate.broker.state.calls import BatchedAdmission
from floodgate.producer.gateway.answers import RefusalError
from floodgate.producer.gateway.reachability import ReachabilityTap
from floodgate.producer.gateway.request_body import RequestBody
from floodgate.producer.uploads import quotable

logger = logging.getLogger("floodgate.gateway")

CONNECT_SECONDS: Final = 10.0
MAX_CONNECTIONS: Final = 1000
PIECE_BYTES: Final = 64 * 1024
# Long polling is silent for as long as the caller asks in the body; nobody asks for more than this.
LONG_POLL_SECONDS: Final = 120.0

# Bytes come back as they are, so they must not be compressed: the caller may not support it.
_PLAIN: Final = {"accept-encoding": "identity"}
# What a download may ask for.
_REQUEST_HEADERS: Final = ("accept", "range", "if-none-match", "if-modified-since")
_ANSWER_HEADERS: Final = (
    "content-type",
    "content-length",
    "content-encoding",
    "content-range",
    "accept-ranges",
    "content-disposition",
    "etag",
    "last-modified",
    "retry-after",
)


class Proxy:
    """Repeats callers' requests to Telegram. Belongs to the event loop; ``close`` is safe to call twice, and unused."""

    def __init__(self, settings: Settings, store: BatchedAdmission) -> None:
        self._settings = settings
        self._store = store
        # Bytes come back as they are: a download must not be unpacked.
        self._session = TelegramSession(MAX_CONNECTIONS, settings.telegram_proxy, auto_decompress=False)

    async def call(self, bot: str, method: str, body: RequestBody) -> Response:
        """Pass a method's call through.

        Raises:
            RefusalError: a parameter names a file on the Bot API server's disk, or Telegram cannot be reached.
        """
        silence, tap = self._settings.gateway.read_seconds, None
        if method == "getUpdates":
            silence, tap = silence + LONG_POLL_SECONDS, ReachabilityTap(self._store, bot)
        url = self._url(bot, f"/bot{{}}/{method}")
        return _response(await self._ask("POST", url, silence, _form(body), {}), tap)

    async def file(self, request: Request, bot: str, path: str) -> Response:
        """Pass a download through."""
        if ".." in path.split("/"):
            raise RefusalError(404, "Not Found")
        headers = {name: request.headers[name] for name in _REQUEST_HEADERS if name in request.headers}
        url = self._url(bot, f"/file/bot{{}}/{quote(path)}")
        return _response(await self._ask(request.method, url, self._settings.gateway.read_seconds, None, headers))

    async def close(self) -> None:
        await self._session.close()

    def _url(self, bot: str, path: str) -> URL:
        token = self._settings.token(bot).get_secret_value()
        return URL(self._settings.telegram_api_url + path.format(token), encoded=True)

    async def _ask(
        self, method: str, url: URL, silence_seconds: float, body: Any, headers: dict[str, str]
    ) -> aiohttp.ClientResponse:
        timeout = aiohttp.ClientTimeout(total=None, connect=CONNECT_SECONDS, sock_read=silence_seconds)
        try:
            return await self._session.request(method, url, data=body, headers=_PLAIN | headers, timeout=timeout)
        except TimeoutError:
            raise RefusalError(504, "Gateway Timeout: Telegram does not answer") from None
        except aiohttp.ClientError as error:
            # The error's text may hold the URL, and so the token; its type does not.
            raise RefusalError(502, f"Bad Gateway: Telegram cannot be reached ({type(error).__name__})") from None


def _form(body: RequestBody) -> aiohttp.FormData:
    """Write a call's parameters and files anew."""
    try:
        check_params(body.params)
    except ValueError as error:
        raise RefusalError(400, f"Bad Request: {error}") from None
    form = aiohttp.FormData(quote_fields=False)
    for name, value in body.params.items():
        form.add_field(name, _text(name, value))
    for name, file in body.files.items():
        form.add_field(name, file.file, filename=quotable(file.filename or ""), content_type=file.content_type)
    return form


def _text(name: str, value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise RefusalError(400, f"Bad Request: {name} must be encoded in UTF-8") from None
    return text


def _response(answer: aiohttp.ClientResponse, tap: ReachabilityTap | None = None) -> Response:
    return StreamingResponse(
        _pieces(answer, tap),
        status_code=answer.status,
        headers={name: answer.headers[name] for name in _ANSWER_HEADERS if name in answer.headers},
        background=BackgroundTask(_end, answer, tap),
    )


async def _pieces(answer: aiohttp.ClientResponse, tap: ReachabilityTap | None) -> AsyncIterator[bytes]:
    try:
        async for piece in answer.content.iter_chunked(PIECE_BYTES):
            if tap is not None:
                tap.feed(piece)
            yield piece
    except (TimeoutError, aiohttp.ClientError) as error:
        logger.warning("an answer of Telegram broke off: %s", type(error).__name__)
        answer.close()
        raise ConnectionError("Telegram's answer broke off") from None


async def _end(answer: aiohttp.ClientResponse, tap: ReachabilityTap | None) -> None:
    answer.release()
    if tap is not None:
        await tap.end()
