"""The gateway's ASGI application.

/bot<token>/<method>          the Bot API
/bot<token>/test/<method>     the Bot API of Telegram's test environment
/file/bot<token>/<path>       downloads
/floodgate/v1/jobs…           the job API (:mod:`floodgate.producer.gateway.jobs`), described at /docs
/floodgate/v1/streams         the stream API (:mod:`floodgate.producer.gateway.streams`), likewise
/floodgate/v1/campaigns…      the campaign API (:mod:`floodgate.producer.gateway.campaigns`), likewise
/health /ready                whether the process runs, and whether it can accept jobs
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from floodgate.broker.amqp.connections import Connections
from floodgate.broker.errors import CampaignError, FloodgateError, RabbitMQError, StateError, UnknownMethodError
from floodgate.broker.process.measurement import Measurement
from floodgate.broker.process.metrics import CALLERS, REQUEST, REQUESTS, Metrics, ProcessRole, status_class
from floodgate.broker.settings.model import TEST_SUFFIX, Settings
from floodgate.broker.state.reporter import Reporter
from floodgate.broker.state.stores import open_batched, open_result_feed, open_store
from floodgate.broker.state.thread import StateThread
from floodgate.producer.async_client import AsyncClient
from floodgate.producer.core import Composer
from floodgate.producer.gateway import campaigns, jobs, streams
from floodgate.producer.gateway.answers import UNAUTHORIZED, RefusalError, refused
from floodgate.producer.gateway.backlog import Backlog
from floodgate.producer.gateway.callers import Callers, kind_of, public_path
from floodgate.producer.gateway.files import GatewayUploads
from floodgate.producer.gateway.proxy import Proxy
from floodgate.producer.gateway.request_body import RequestBody, read
from floodgate.producer.gateway.request_options import request_options
from floodgate.producer.gateway.routes import Route, route_of
from floodgate.producer.gateway.sending import Parts, Sending
from floodgate.producer.gateway.state import GatewayState, Running
from floodgate.producer.gateway.traces import RequestTraces
from floodgate.producer.waiting import Waiting

if TYPE_CHECKING:
    from floodgate.broker.process.spans import Tracing

logger = logging.getLogger("floodgate.gateway")
access = logging.getLogger("floodgate.access")

READY_SECONDS: Final = 5.0
NOT_FOUND: Final = (404, "Not Found")
_CALL: Final = re.compile(rf"/bot([^/]+(?:{TEST_SUFFIX})?)/([^/]+)")
_FILE: Final = re.compile(rf"/file/bot([^/]+(?:{TEST_SUFFIX}(?=/))?)/(.*)", re.DOTALL)

# FastAPI's own spans hold the path as it came, which may hold a token. RequestTraces makes the gateway's.
_NO_TELEMETRY: Final[Any] = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}

PathHandler = Callable[[Request, str, str], Awaitable[Response]]


class Gateway:
    """One gateway, as an ASGI application (``app``). Opens nothing before its lifespan begins.

    Args:
        tracing: makes the spans of requests; None only passes the callers' traces on.

    Raises:
        SettingsError: no bot is configured, or the state URL is invalid.
    """

    def __init__(self, settings: Settings, tracing: Tracing | None = None) -> None:
        settings.require_bots()
        self.measurement = Measurement(settings, ProcessRole.GATEWAY)
        self.state = GatewayState(settings, Callers(settings))
        self.api = FastAPI(
            title="Floodgate",
            summary="Send Telegram messages as fast as Telegram allows, never faster.",
            version="1",
            lifespan=self._lifespan,
            redoc_url=None,
            telemetry=_NO_TELEMETRY,
        )
        self.api.add_route("/health", self._health, methods=["GET"], include_in_schema=False)
        self.api.add_route("/ready", self._ready, methods=["GET"], include_in_schema=False)
        self.api.state.gateway = self.state
        for router in (jobs.router, streams.router, campaigns.router, campaigns.uploads):
            self.api.include_router(router)
        for kind, handler in _HANDLERS:
            self.api.add_exception_handler(kind, handler)
        paths = BotApiPaths(self._bot_api, self._file, self.api)
        self.app: ASGIApp = AccessLog(RequestTraces(paths, tracing), self.measurement.metrics)

    def begin_drain(self) -> None:
        """Make /ready answer 503, so that no new requests are sent here."""
        if self.state.open is not None:
            self.state.running.draining = True

    def end_drain(self) -> None:
        """Answer all callers that still wait: their jobs are safe."""
        if self.state.open is not None:
            self.state.running.sending.drain()

    @asynccontextmanager
    async def _lifespan(self, _app: FastAPI) -> AsyncIterator[None]:
        settings = self.state.settings
        bots = list(settings.tokens)
        state_thread = StateThread()
        store = open_batched(settings, state_thread)
        metrics = self.measurement.metrics
        connections = Connections(
            settings,
            "gateway",
            on_callers_loop=True,
            patience_seconds=settings.publish_patience_seconds,
            metrics=metrics,
        )
        ledger = open_store(settings)  # for the listener's thread
        waiting = Waiting(ledger, partial(open_result_feed, settings), bots)
        metrics.follow(CALLERS, lambda: waiting.count)
        client = AsyncClient(settings, bot=bots[0], connections=connections)
        parts = Parts(
            settings,
            Composer(settings, bots[0]),
            client,
            store,
            waiting,
            Backlog(settings, connections, store),
            GatewayUploads(settings),
        )
        self.state.open = Running(parts, Sending(parts), Proxy(settings, store), connections)
        await parts.uploads.start()
        await self.measurement.start()
        reporter = Reporter(settings, metrics)
        reporter.start()
        try:
            yield
        finally:
            await parts.uploads.stop()
            self.state.running.sending.drain()
            await self.state.running.proxy.close()
            await client.close()
            await asyncio.to_thread(waiting.stop)
            await connections.aclose()
            ledger.close()
            await store.close()
            await state_thread.stop()
            await reporter.stop()
            await self.measurement.stop()
            self.state.open = None

    async def _bot_api(self, request: Request, token: str, method: str) -> Response:
        bot = self.state.callers.bot(token, request.headers.get("x-floodgate-bot"))
        try:
            row = route_of(self.state.settings.method(method))
        except UnknownMethodError:
            raise RefusalError(*NOT_FOUND) from None
        if row.route is Route.REFUSED:
            raise RefusalError(403, f"Forbidden: the gateway does not accept {row.method}: {row.why}")
        gateway = self.state.settings.gateway
        body = await read(request, gateway)
        options, params = request_options(request.headers, body.params, gateway)
        body = RequestBody(params, body.files)
        if options.bot is not None:
            bot = self.state.callers.bot(token, options.bot)
        if row.route is Route.PASSED:
            return await self.state.running.proxy.call(bot, row.method, body)
        return await self.state.running.sending.send(request, bot, row.method, body, options)

    async def _file(self, request: Request, token: str, path: str) -> Response:
        bot = self.state.callers.bot(token, request.headers.get("x-floodgate-bot"))
        return await self.state.running.proxy.file(request, bot, path)

    async def _health(self, _request: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def _ready(self, _request: Request) -> Response:
        """Check whether a job would be accepted now, and its result be known."""
        running = self.state.running
        problems = ["the gateway is shutting down"] if running.draining else []
        bot = next(iter(self.state.settings.tokens))
        for check in (running.connections.aconnect, partial(running.parts.store.lookup, bot, "")):
            try:
                async with asyncio.timeout(READY_SECONDS):
                    await check()
            except (RabbitMQError, StateError) as error:
                problems.append(str(error))
            except TimeoutError:
                problems.append(f"no answer within {READY_SECONDS:g} s")
        status = "ready" if not problems else "not ready"
        waiting = running.parts.waiting.count
        fields = {"status": status, "troubles": problems, "waiting": waiting, "streams": running.streams}
        return JSONResponse(fields, status_code=503 if problems else 200)


class BotApiPaths:
    """Serves the Bot API's own paths directly, and leaves all others to FastAPI, whose layers would take a quarter of
    the CPU time of a call.

    Args:
        call: the handler of ``/bot<token>/<method>``. Its arguments are the request, the token and the method.
        file: the handler of ``/file/bot<token>/<path>``. Its arguments are the request, the token and the path.
        others: the application that serves all other paths.
    """

    def __init__(self, call: PathHandler, file: PathHandler, others: ASGIApp) -> None:
        self._routes = ((_CALL, ("GET", "HEAD", "POST"), call), (_FILE, ("GET", "HEAD"), file))
        self._others = others

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            for path, methods, handler in self._routes:
                if match := path.fullmatch(scope["path"]):
                    request = Request(scope, receive, send)
                    allowed = scope["method"] in methods
                    response = await _answered(request, handler, match) if allowed else _not_allowed(methods)
                    await response(scope, receive, send)
                    return
        await self._others(scope, receive, send)


def _not_allowed(methods: Sequence[str]) -> Response:
    allowed = ", ".join(methods)
    return refused(405, f"Method Not Allowed: use one of {allowed}", headers={"Allow": allowed})


async def _answered(request: Request, handler: PathHandler, match: re.Match[str]) -> Response:
    try:
        return await handler(request, match[1], match[2])
    except Exception as error:  # noqa: BLE001  # the last of the handlers takes any unexpected error
        return await next(respond for kind, respond in _HANDLERS if isinstance(error, kind))(request, error)


class AccessLog:
    """Logs one line per request, without secrets, and counts it. Paths contain tokens, so uvicorn's own access log
    stays off."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.monotonic(), 0

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watch)
        finally:
            seconds = time.monotonic() - started
            access.info("%s %s %d %.0f ms", scope["method"], public_path(scope["path"]), status, seconds * 1000)
            kind = kind_of(scope["path"])
            self._metrics.count(REQUESTS, kind, status_class(status))
            self._metrics.observe(REQUEST, seconds, kind)


async def _refusal(_request: Request, error: Any) -> Response:
    return RefusalError.answer(error)


async def _gone(_request: Request, _error: Any) -> Response:
    return refused(400, "Bad Request: the request ended before its body was complete")


async def _invalid(_request: Request, error: Any) -> Response:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return refused(422, f"Unprocessable Entity: {where}: {first['msg']}")


async def _conflict(_request: Request, error: Any) -> Response:
    return refused(409, f"Conflict: {error}")


async def _unavailable(_request: Request, error: Any) -> Response:
    return refused(503, f"Service Unavailable: {error}")


async def _framework(request: Request, error: Any) -> Response:
    """Answer a request that FastAPI refuses, in Telegram's form: a wrong path gets the answer that Telegram gives."""
    if request.url.path.startswith("/bot/"):
        return refused(*UNAUTHORIZED)
    if error.status_code == 405 and not request.url.path.startswith("/floodgate/"):
        return refused(*NOT_FOUND)
    return refused(error.status_code, str(error.detail), headers=error.headers)


async def _fault(_request: Request, error: Any) -> Response:
    logger.error("could not answer a request", exc_info=error)
    return refused(500, "Internal Server Error: see the gateway's log")


_HANDLERS: Final[Sequence[tuple[type[Exception], Callable[[Request, Any], Awaitable[Response]]]]] = (
    (RefusalError, _refusal),
    (ClientDisconnect, _gone),
    (CampaignError, _conflict),
    (FloodgateError, _unavailable),
    (RequestValidationError, _invalid),
    (HTTPException, _framework),
    (Exception, _fault),
)
