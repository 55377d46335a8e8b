"""Counts the requests of the web pages, refused ones included, by page and by class of the status."""

from __future__ import annotations

import time
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from floodgate.broker.process.metrics import LIVE_PARTS, OTHER, PAGES, PAGES_ANSWERED, PAGES_TIME, Metrics, status_class

_FIRST: Final = "overview"
_KNOWN: Final = frozenset(PAGES)


class RequestCounts:
    """An ASGI application around that of the pages. The answers of live parts last as long as the page is open, so
    they are counted and not timed."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        page, started, status = page_of(scope["path"]), time.monotonic(), 0

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._metrics.count(PAGES_ANSWERED, page, status_class(status))
            await send(message)

        try:
            await self._app(scope, receive, watch)
        finally:
            if not status:
                self._metrics.count(PAGES_ANSWERED, page, status_class(status))
            if page != LIVE_PARTS:
                self._metrics.observe(PAGES_TIME, time.monotonic() - started, page)


def page_of(path: str) -> str:
    """Return the page that a path belongs to: one of few words, whatever the path."""
    first = path.split("/", 2)[1] if path.startswith("/") else OTHER
    if not first:
        return _FIRST
    return first if first in _KNOWN and first != _FIRST else OTHER
