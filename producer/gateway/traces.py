"""The traces of HTTP requests: the caller's ``traceparent`` reaches the messages that a request enqueues.

A gateway that makes spans makes one for each request, a child of the caller's. One that does not passes the caller's
trace on as it came.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from floodgate.broker.messages.trace_context import TRACEPARENT, TRACESTATE, carried, received
from floodgate.producer.gateway.callers import public_path

if TYPE_CHECKING:
    from floodgate.broker.process.spans import Tracing

_HEADERS: Final = {name.encode(): name for name in (TRACEPARENT, TRACESTATE)}


class RequestTraces:
    """Traces the requests that ``app`` serves. Without ``tracing``, only passes the callers' traces on."""

    def __init__(self, app: ASGIApp, tracing: Tracing | None) -> None:
        self._app = app
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif self._tracing is not None:
            await self._in_span(self._tracing, scope, receive, send)
        else:
            token = received.set(carried(_headers(scope)))
            try:
                await self._app(scope, receive, send)
            finally:
                received.reset(token)

    async def _in_span(self, tracing: Tracing, scope: Scope, receive: Receive, send: Send) -> None:
        with tracing.request(scope["method"], public_path(scope["path"]), _headers(scope)) as answered:

            async def watch(message: Message) -> None:
                if message["type"] == "http.response.start":
                    answered(message["status"])
                await send(message)

            await self._app(scope, receive, watch)


def _headers(scope: Scope) -> dict[str, str]:
    return {_HEADERS[name]: value.decode("latin-1") for name, value in scope["headers"] if name in _HEADERS}
