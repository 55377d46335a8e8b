"""The overview: every bot's rate against its limit, what waits, pauses, and whether RabbitMQ and the store answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from floodgate.broker.state.activity import ProcessReport
from floodgate.web.history import Span
from floodgate.web.pages.plots import chosen_span, plots_of_all
from floodgate.web.picture import picture_of
from floodgate.web.rendering import fragment, page
from floodgate.web.service_threads import PartOfPage, attempt
from floodgate.web.services import Services, services_of

LIVE_SECONDS: Final = 2.0


async def show(request: Request) -> Response:
    """Show the overview."""
    picture, processes = await asyncio.gather(picture_of(request).look(), _processes(services_of(request)))
    return page(
        request,
        "overview.html",
        picture=picture,
        processes=processes,
        plotted=await plots_of_all(request, picture.bots, ("rate", "waits")),
        spans=list(Span),
        span=chosen_span(request),
    )


async def live(request: Request) -> Response:
    """Stream the overview."""
    picture, services = picture_of(request), services_of(request)

    async def render() -> str:
        now, processes = await asyncio.gather(picture.look(), _processes(services))
        return fragment("overview_part.html", picture=now, processes=processes)

    return services.live.stream("overview", render, LIVE_SECONDS)


async def _processes(services: Services) -> PartOfPage[Sequence[ProcessReport]]:
    return await attempt(services.ask_store(services.activity.processes))
