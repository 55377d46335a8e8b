"""HTTP requests for python-telegram-bot, made with aiohttp: a ninth of the CPU time of its default stack.

Invariants, each with a test:

- A POST is sent at most once. aiohttp resends idempotent methods after a lost keep-alive connection, but never a POST;
  a redirect would turn a POST into a GET, so redirects are not followed.
- Every failure is a ``NetworkError`` (``TimedOut`` for time-outs). It is raised from
  :class:`~floodgate.broker.errors.NotSentError` if the call certainly never reached the server, otherwise from
  :class:`~floodgate.broker.errors.CutOffError`.
- No exception contains the URL, which contains the token. aiohttp's own exceptions may, so they become neither cause
  nor context.

A server may close an idle connection just as a call is written to it. Whether it read the call is unknown, so the call
counts as cut off. To make this rare, idle connections are closed before servers close them.
"""

from __future__ import annotations

import json
import math
import os
from typing import TYPE_CHECKING, Any, Final

import aiohttp
from pydantic import SecretStr
from telegram.error import NetworkError, TimedOut
from telegram.request import BaseRequest, RequestData
from yarl import URL

from floodgate.broker.errors import CutOffError, NotSentError
from floodgate.broker.process.telegram_session import TelegramSession

if TYPE_CHECKING:
    from telegram._utils.types import ODVInput

JSON_HEADERS: Final = {"Content-Type": "application/json"}
# The errors that aiohttp raises before it has a connection to write to.
_BEFORE_SENDING: Final = (
    aiohttp.ClientConnectorError,  # refused, unreachable, DNS, TLS, and the same at a proxy
    aiohttp.ConnectionTimeoutError,  # waiting for the pool, DNS, the connection or TLS
    aiohttp.ClientHttpProxyError,  # the proxy refused to connect
    aiohttp.InvalidURL,
    aiohttp.NonHttpUrlClientError,
)


class AiohttpRequest(BaseRequest):
    """A drop-in replacement for python-telegram-bot's ``HTTPXRequest``. Belongs to the event loop that initialises it.

    Time-outs are in seconds; None means no time-out. aiohttp applies ``pool_timeout`` + ``connect_timeout`` to the wait
    for the pool and for the connection together, and has no separate time-out for writing. The whole call ends within
    the sum of all four.

    Args:
        connections: the most connections open at once; further calls wait for up to ``pool_timeout``.
        media_write_timeout: replaces ``write_timeout`` for calls that upload files.
        proxy: the URL of an HTTP proxy, with credentials if it needs them.
    """

    __slots__ = ("_connections", "_defaults", "_media_write_timeout", "_proxy", "_session")

    def __init__(
        self,
        *,
        connections: int = 256,
        read_timeout: float | None = 5,
        write_timeout: float | None = 5,
        connect_timeout: float | None = 5,
        pool_timeout: float | None = 1,
        media_write_timeout: float | None = 20,
        proxy: SecretStr | None = None,
    ) -> None:
        self._connections = connections
        self._defaults = (read_timeout, write_timeout, connect_timeout, pool_timeout)
        self._media_write_timeout = media_write_timeout
        self._proxy = proxy
        self._session: TelegramSession | None = None

    @property
    def read_timeout(self) -> float | None:
        """The default time-out for reading an answer, in seconds."""
        return self._defaults[0]

    async def initialize(self) -> None:
        """Create the connection pool without connecting. Safe to call twice, and again after :meth:`shutdown`."""
        if self._session is None:
            self._session = TelegramSession(self._connections, self._proxy, headers={"User-Agent": self.USER_AGENT})

    async def shutdown(self) -> None:
        """Close every connection. Calls under way are cut off. Safe to call twice, and before :meth:`initialize`."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def do_request(
        self,
        url: str,
        method: str,
        request_data: RequestData | None = None,
        read_timeout: ODVInput[float] = BaseRequest.DEFAULT_NONE,
        write_timeout: ODVInput[float] = BaseRequest.DEFAULT_NONE,
        connect_timeout: ODVInput[float] = BaseRequest.DEFAULT_NONE,
        pool_timeout: ODVInput[float] = BaseRequest.DEFAULT_NONE,
    ) -> tuple[int, bytes]:
        """Make one HTTP request. Returns the status and the body of any answer.

        Raises:
            TimedOut: a time-out expired.
            NetworkError: the call failed otherwise. Both are raised from ``NotSentError`` or ``CutOffError``.
        """
        timeout = self._timeout(request_data, (read_timeout, write_timeout, connect_timeout, pool_timeout))
        return await self.exchange(method, url, timeout, **_body(request_data))

    async def exchange(
        self, method: str, url: str | URL, timeout: aiohttp.ClientTimeout, **body: Any
    ) -> tuple[int, bytes]:
        """:meth:`do_request` with aiohttp's own arguments; raises the same errors."""
        if self._session is None:
            raise NetworkError("The HTTP session is closed") from NotSentError("the HTTP session is closed")
        try:
            async with await self._session.request(method, url, timeout=timeout, **body) as response:
                return response.status, await response.read()
        except (aiohttp.ClientError, OSError) as error:
            fault = _fault(error)
        raise fault  # outside of the handler: aiohttp's error must not become its context

    def _timeout(self, request_data: RequestData | None, asked: tuple[object, ...]) -> aiohttp.ClientTimeout:
        read, write, connect, pool = map(_seconds, asked, self._defaults)
        if asked[1] is BaseRequest.DEFAULT_NONE and request_data is not None and request_data.contains_files:
            write = self._media_write_timeout
        return aiohttp.ClientTimeout(
            total=_sum(read, write, connect, pool),
            connect=_sum(connect, pool),
            sock_connect=connect,
            sock_read=read,
            ceil_threshold=math.inf,  # no rounding up: a job's lease ends soon after its call's time-out
        )


def _seconds(asked: object, default: float | None) -> float | None:
    """The requested time-out. None is a valid request; anything that is neither None nor a number means the default."""
    return asked if asked is None or isinstance(asked, int | float) else default


def _sum(*seconds: float | None) -> float | None:
    known = [bound for bound in seconds if bound is not None]
    return sum(known) if len(known) == len(seconds) else None


def _body(request_data: RequestData | None) -> dict[str, Any]:
    """Encode parameters as JSON, or with files as multipart. Non-ASCII is escaped, so any Python string can be sent."""
    if request_data is None:
        return {}
    if not request_data.contains_files:
        return {"data": json.dumps(request_data.parameters).encode(), "headers": JSON_HEADERS}
    # The Bot API takes file names literally and does not support `filename*=`, so they are not percent-encoded.
    form = aiohttp.FormData(quote_fields=False, default_to_multipart=True)
    for name, text in request_data.json_parameters.items():
        form.add_field(name, text)
    for name, (filename, content, content_type) in request_data.multipart_data.items():
        form.add_field(name, content, filename=filename, content_type=content_type)
    return {"data": form}


def _fault(error: aiohttp.ClientError | OSError) -> NetworkError:
    before = isinstance(error, _BEFORE_SENDING)
    wording = f"{'not sent' if before else 'cut off'}: {_describe(error)}"
    fault = TimedOut(wording) if isinstance(error, TimeoutError) else NetworkError(wording)
    fault.__cause__ = NotSentError(wording) if before else CutOffError(wording)
    return fault


def _describe(error: aiohttp.ClientError | OSError) -> str:
    """Describe an error without its URL: by its type and the operating system's message.

    The ``strerror`` of an aiohttp error is aiohttp's own ("Can not write request body for <URL>"), so only the
    ``errno`` is used.
    """
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    system = cause.strerror if isinstance(cause, OSError) else None
    if isinstance(cause, aiohttp.ClientError):
        system = os.strerror(cause.errno) if isinstance(cause, OSError) and cause.errno else None
    return f"{type(error).__name__} ({system})" if system else type(error).__name__
