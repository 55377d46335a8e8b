"""The overview: every bot's rate against its limit, what waits, pauses, and whether RabbitMQ and the store answer."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from floodgate.web.pages.plots import plots_of_all, span_choice
from floodgate.web.picture import picture_of
from floodgate.web.rendering import fragment, page
from floodgate.web.services import services_of

LIVE_SECONDS: Final = 2.0


async def show(request: Request) -> Response:
    """Show the overview."""
    picture = await picture_of(request).look()
    return page(
        request,
        "overview.html",
        picture=picture,
        plotted=await plots_of_all(request, picture.bots, ("rate", "waits")),
        **span_choice(request),
    )


async def live(request: Request) -> Response:
    """Stream the overview."""
    picture = picture_of(request)

    async def render() -> str:
        return fragment("overview_part.html", picture=await picture.look())

    return services_of(request).live.stream("overview", render, LIVE_SECONDS)
