"""HTTP towards the Bot API: every component that calls it opens its connections here."""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, Self, cast

import aiohttp
from pydantic import SecretStr
from yarl import URL

# Shorter than servers keep idle connections: nginx, in front of most Bot API servers, 75 s; few others under 60 s.
KEEP_ALIVE_SECONDS: Final = 15


class TelegramSession:
    """A pool of connections to the Bot API, opened by the first request. Belongs to one event loop.

    It keeps no cookies and follows no redirects: a redirect would turn a POST into a GET.

    Args:
        connections: most connections open at once; 0 for no limit.
        proxy: URL of an HTTP proxy, with credentials if it needs any.
        options: further options of :class:`aiohttp.ClientSession`.
    """

    def __init__(self, connections: int, proxy: SecretStr | None, **options: Any) -> None:
        self._connections = connections
        self._proxy = proxy
        self._options = options
        self._session: aiohttp.ClientSession | None = None

    async def request(self, method: str, url: str | URL, **options: Any) -> aiohttp.ClientResponse:
        """Send a request; the response must be used as a context manager, or released.

        Raises:
            aiohttp.ClientError, OSError: it failed. Their texts may hold the URL, and so the token.
        """
        return await self._open().request(method, url, allow_redirects=False, **options)

    async def close(self) -> None:
        """Close all connections; requests under way are cut off. Safe to call twice, and when nothing was opened."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=self._connections,
                    keepalive_timeout=KEEP_ALIVE_SECONDS,
                    resolver=aiohttp.ThreadedResolver(loop=cast("asyncio.AbstractEventLoop", NameLookups())),
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                proxy=self._proxy.get_secret_value() if self._proxy else None,
                **self._options,
            )
        return self._session


class NameLookups:
    """Resolves names on its own thread instead of the loop's executor, which a slow disk may block.

    Implements the part of an event loop that aiohttp's resolver uses.
    """

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="floodgate-names")  # starts at the first look-up

    async def getaddrinfo(self, host: str, port: int, **options: int) -> Any:
        look_up = partial(socket.getaddrinfo, host, port, **options)
        return await asyncio.get_running_loop().run_in_executor(self._executor, look_up)

    async def getnameinfo(self, address: Any, flags: int = 0) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._executor, socket.getnameinfo, address, flags)
