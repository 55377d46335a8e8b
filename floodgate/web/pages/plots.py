"""The plots of a bot's history, and the same values as tables."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from floodgate.broker.state.activity import History
from floodgate.overview.picture import BotOverview
from floodgate.web.history import PLOTS, KnownHistory, PlotLines, Span, rows_of
from floodgate.web.pages.choice import named_bot
from floodgate.web.services import Services, services_of

TITLES: Final = {
    "rate": "Rate and limit",
    "waits": "Waits by cause, a second",
    "waiting": "Jobs in lines",
    "updates": "Updates",
    "lag": "Lag of updates",
}


MOST_PLOTTED: Final = 10
"""A page of all bots plots the first ones only; each bot's page has its plots."""


@dataclass(frozen=True, slots=True)
class HistoryPlot:
    """A plot on a page: where its points are, and its table."""

    title: str
    url: str
    rows: PlotLines | None
    problem: str | None


def chosen_span(request: Request) -> Span:
    """Return the span in the URL; by default, the shortest.

    Raises:
        HTTPException: 400, because there is no such span.
    """
    given = request.query_params.get("span", Span.TEN_MINUTES.label)
    for span in Span:
        if span.label == given:
            return span
    raise HTTPException(400, f"{given[:20]!r} is not a span: choose 10m, 6h or 7d.")


def span_choice(request: Request) -> dict[str, Any]:
    """Return what the choice of a span on a page needs: all of them, and the one in the URL."""
    return {"spans": list(Span), "span": chosen_span(request)}


async def plots_of(request: Request, bot: str, names: Sequence[str]) -> Sequence[HistoryPlot]:
    """Return some plots of a bot over the span in the URL."""
    services, span = services_of(request), chosen_span(request)
    known = await services.histories.look(bot, span)
    found = []
    for name in names:
        rows = await _made(services, known, f"rows of {name}", partial(rows_of, name, span=span))
        url = f"/data/bots/{bot}/{name}?span={span.label}"
        found.append(HistoryPlot(TITLES[name], url, rows, known.part.problem))
    return found


async def plots_of_all(
    request: Request, bots: Sequence[BotOverview], names: Sequence[str]
) -> Sequence[tuple[BotOverview, Sequence[HistoryPlot]]]:
    """Return some plots of each of the first :data:`MOST_PLOTTED` bots."""
    shown = bots[:MOST_PLOTTED]
    plots = await asyncio.gather(*(plots_of(request, each.name, names) for each in shown))
    return list(zip(shown, plots, strict=True))


async def data(request: Request) -> Response:
    """Return the points of a plot."""
    services, span, name = services_of(request), chosen_span(request), request.path_params["plot"]
    if name not in PLOTS:
        raise HTTPException(404, "There is no such plot.")
    known = await services.histories.look(named_bot(request), span)
    lines = await _made(services, known, name, lambda history: PLOTS[name](history, span.step_seconds))
    if lines is None:
        return JSONResponse({"x": [], "series": [], "problem": known.part.problem}, 503)
    return JSONResponse(lines.as_json())


async def _made(
    services: Services, known: KnownHistory, name: str, make: Callable[[History], PlotLines]
) -> PlotLines | None:
    """Return what is made of a history, once for all who look; None if the history could not be read."""
    if known.part.value is not None and name not in known.made:
        known.made[name] = await services.compute(make, known.part.value)
    return known.made.get(name)
