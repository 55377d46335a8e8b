"""The ASGI application of the web pages."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from floodgate.broker.process.measurement import Measurement
from floodgate.broker.process.metrics import EVENT_STREAMS, ProcessRole
from floodgate.broker.settings.model import Settings
from floodgate.broker.state.reporter import Reporter
from floodgate.web.actions import confirm
from floodgate.web.live import LiveParts
from floodgate.web.pages import audit, bots, campaigns, chat, jobs, letters, overview, plots, unreachable, updates
from floodgate.web.picture import LivePicture
from floodgate.web.rendering import page
from floodgate.web.services import Services

logger = logging.getLogger("floodgate.web")

STATIC: Final = Path(__file__).parent / "static"


class Pages:
    """The web pages, as an ASGI application (``app``). Opens nothing before its lifespan begins.

    Args:
        middleware: what guards every request. It sets ``request.state.viewer``, and ``request.state.csrf_token`` for
            the forms, which return it as the field ``csrf_token``.
        routes: further routes, such as those that log a viewer in.
        measurement: of this process; by default, one is made.
    """

    def __init__(
        self,
        settings: Settings,
        middleware: Sequence[Middleware] = (),
        routes: Sequence[BaseRoute] = (),
        measurement: Measurement | None = None,
    ) -> None:
        settings.require_bots()
        self.settings = settings
        self._measurement = measurement or Measurement(settings, ProcessRole.WEB)
        self._live: LiveParts | None = None
        self.app = Starlette(
            routes=[*routes, *_ROUTES, Mount("/static", StaticFiles(directory=STATIC, check_dir=False), name="static")],
            middleware=middleware,
            exception_handlers={HTTPException: _refused, Exception: _failed},
            lifespan=self._lifespan,
        )

    def begin_stop(self) -> None:
        """End the streams of events. Call it on the event loop; safe to call twice, and unstarted."""
        if self._live is not None:
            self._live.stop()

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        metrics = self._measurement.metrics
        services, picture = Services(self.settings, metrics), LivePicture(self.settings)
        app.state.services, app.state.picture = services, picture
        self._live = live = services.live
        metrics.follow(EVENT_STREAMS, lambda: live.streams)
        await self._measurement.start()
        reporter = Reporter(self.settings, metrics)
        reporter.start()
        warming = asyncio.create_task(picture.look(), name="first picture")
        try:
            yield
        finally:
            warming.cancel()
            services.live.stop()
            await asyncio.gather(services.close(), picture.close(), reporter.stop(), self._measurement.stop())


async def _health(_request: Request) -> Response:
    return PlainTextResponse("alive\n")


async def _refused(request: Request, error: Any) -> Response:
    if getattr(request.state, "viewer", None) is None:
        return PlainTextResponse(f"{error.detail}\n", error.status_code, error.headers)
    return page(request, "error.html", error.status_code, what=error.detail)


async def _failed(request: Request, error: Exception) -> Response:
    logger.error("could not render %s", request.url.path, exc_info=error)
    return PlainTextResponse("Something failed here; the process's log says what.\n", 500)


_ROUTES: Final = [
    Route("/health", _health),
    Route("/", overview.show),
    Route("/live/overview", overview.live),
    Route("/bots", bots.show_list),
    Route("/bots/{bot}", bots.show),
    Route("/live/bots/{bot}", bots.live),
    Route("/data/bots/{bot}/{plot}", plots.data),
    Route("/chats", bots.find_chat),
    Route("/chats/{bot}/{chat}", chat.show, name="chat"),
    Route("/live/chats/{bot}/{chat}", chat.live),
    Route("/jobs", jobs.show),
    Route("/dead-letters", letters.show_list),
    Route("/dead-letters/{letter:path}", letters.show),
    Route("/unreachable", unreachable.show),
    Route("/campaigns", campaigns.show_list),
    Route("/campaigns/{name}", campaigns.show),
    Route("/live/campaigns/{name}", campaigns.live),
    Route("/data/campaigns/{name}", campaigns.plot),
    Route("/updates", updates.show),
    Route("/audit", audit.show_list),
    Route("/audit/{entry}", audit.show),
    Route("/actions/{action}", confirm.confirm, methods=["GET"]),
    Route("/actions/{action}", confirm.act, methods=["POST"]),
]
