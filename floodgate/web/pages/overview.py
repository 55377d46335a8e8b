"""The overview: every bot's rate against its limit, pauses, workers, and whether RabbitMQ and the store answer."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from floodgate.web.rendering import page


async def show(request: Request) -> Response:
    """Show the overview."""
    return page(request, "overview.html")
