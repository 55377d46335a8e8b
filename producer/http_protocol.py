"""uvicorn's HTTP/1.1 with three limits that uvicorn lacks: on the time and size of a request's header section, and on
the number of connections.

uvicorn waits indefinitely for the rest of a header section of any size, and its ``limit_concurrency`` counts silent
connections, too: a stranger who opens enough of them makes everyone else get a 503.

State: a connection is idle while no request is being served on it: it is new, it is between requests, its headers are
incomplete, or its client does not read. Headers must be complete within :attr:`ConnectionBounds.head_seconds`. When
there are :attr:`ConnectionBounds.most` connections, the one that has been idle longest is closed for the next; if all
are busy, the next is refused. All of this belongs to the event loop.
"""

from __future__ import annotations

import asyncio
import logging
import resource
from functools import partial
from typing import Any, Final

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

logger = logging.getLogger("floodgate.http")

HEAD_SECONDS: Final = 10.0
MOST_HEAD_BYTES: Final = 64 * 1024
# File descriptors reserved for everything but callers: RabbitMQ, the state store, the spool, calls to Telegram.
RESERVED_DESCRIPTORS: Final = 1500
_TOO_LARGE: Final = b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
_BUSY: Final = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class ConnectionBounds:
    """The limits and the list of idle connections that one server's connections share."""

    def __init__(self, most: int, head_seconds: float) -> None:
        self.most = most
        self.head_seconds = head_seconds
        self.idle: dict[BoundedProtocol, None] = {}  # the one idle longest comes first

    def make_room(self) -> bool:
        """Close the connection that has been idle longest. Returns False if none is idle."""
        longest = next(iter(self.idle), None)
        if longest is not None:
            longest.give_up()
        return longest is not None


class BoundedProtocol(HttpToolsProtocol):
    """One connection of a server with limits."""

    def __init__(self, bounds: ConnectionBounds, **given: Any) -> None:
        super().__init__(**given)
        self._bounds = bounds
        self._head_timer: asyncio.TimerHandle | None = None
        self._in_head = False
        self._head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in the base
        super().connection_made(transport)
        if len(self.connections) > self._bounds.most and not self._bounds.make_room():
            transport.write(_BUSY)
            transport.close()
            return
        self._bounds.idle[self] = None
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave_idle()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._head_bytes = self._head_bytes + len(data) if self._in_head else 0
        if self._at_work:
            self._leave_idle()
        elif not self.transport.is_closing():
            self._bound_head()

    def on_message_begin(self) -> None:
        self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()

    def _unsupported_upgrade_warning(self) -> None:
        """Ignore a request to upgrade and go on with HTTP/1.1, as a server may. The parser would stop."""
        self.parser = httptools.HttpRequestParser(self)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self._at_work and not self.transport.is_closing():
            self._bounds.idle[self] = None  # until the next request begins, uvicorn's own time-out applies

    def give_up(self) -> None:
        """Abort the connection instead of closing it: an idle client may not read either."""
        self._leave_idle()
        self.transport.abort()

    @property
    def _at_work(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _bound_head(self) -> None:
        if self._head_bytes > MOST_HEAD_BYTES:
            self.transport.write(_TOO_LARGE)
            self.transport.close()
        elif self._head_timer is None:
            self._await_head()

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(self._bounds.head_seconds, self.give_up)

    def _leave_idle(self) -> None:
        self._bounds.idle.pop(self, None)
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


def bounded_http(most: int, head_seconds: float = HEAD_SECONDS) -> Any:
    """Return a value for the ``http`` argument of ``uvicorn.Config``. Use one per server.

    Args:
        most: the most connections open at once; fewer if this process may not open that many files.
        head_seconds: how long a client may take to send a request's headers.
    """
    return partial(BoundedProtocol, ConnectionBounds(_connections_possible(most), head_seconds))


def server_config(app: Any, most: int, **options: Any) -> uvicorn.Config:
    """Create the configuration of a :class:`uvicorn.Server` with these limits.

    Args:
        most: the most connections open at once; fewer if this process may not open that many files.
        options: further options of :class:`uvicorn.Config`.
    """
    return uvicorn.Config(
        app,
        http=bounded_http(most),
        ws="none",
        access_log=False,  # it would contain tokens
        proxy_headers=False,  # the client's address is not used
        log_config=None,
        server_header=False,
        **options,
    )


def _connections_possible(wanted: int) -> int:
    """Raise the soft limit on open files as far as needed and allowed; return how many connections then fit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + RESERVED_DESCRIPTORS
    allowed = _finite(hard, needed)
    if _finite(soft, needed) < min(needed, allowed):
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(needed, allowed), hard))
    possible = min(wanted, max(allowed - RESERVED_DESCRIPTORS, allowed // 2))
    if possible < wanted:
        logger.warning(
            "this process may open %d files, so it accepts %d connections at once, not %d: raise `ulimit -n` to %d",
            *(allowed, possible, wanted, needed),
        )
    return possible


def _finite(limit: int, otherwise: int) -> int:
    return otherwise if limit == resource.RLIM_INFINITY else limit
