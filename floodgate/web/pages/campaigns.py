"""Campaigns: the list, one campaign with its plot, and one of its recipients."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from floodgate.broker.errors import CampaignError, InvalidParamsError
from floodgate.web.pages.choice import chosen_bot
from floodgate.web.paging import ListPage, number_of
from floodgate.web.rendering import fragment, page
from floodgate.web.service_threads import attempt
from floodgate.web.services import Services, services_of
from floodgate.web.viewer import Action, viewer_of

if TYPE_CHECKING:
    from floodgate.producer.campaigns.sending.pace import CampaignPace
    from floodgate.producer.campaigns.sending.progress import CampaignProgress
    from floodgate.producer.campaigns.storage.records import Recipient

LIVE_SECONDS: Final = 1.0
PER_PAGE: Final = 20  # each takes a few statements
MOST_SHOWN_TEXT: Final = 20_000
# What is possible in each state.
_POSSIBLE: Final = {
    "draft": (Action.CANCEL_CAMPAIGN,),
    "ready": (Action.START_CAMPAIGN, Action.CANCEL_CAMPAIGN),
    "running": (Action.PAUSE_CAMPAIGN, Action.CANCEL_CAMPAIGN),
    "paused": (Action.RESUME_CAMPAIGN, Action.CANCEL_CAMPAIGN),
    "stopped": (Action.RESUME_CAMPAIGN, Action.CANCEL_CAMPAIGN),
}


async def show_list(request: Request) -> Response:
    """List the campaigns, the latest first."""
    services, number = services_of(request), number_of(request)
    bot = chosen_bot(request)
    campaigns = await attempt(_listed(services, bot, number))
    return page(request, "campaigns.html", campaigns=campaigns, bot=bot, bots=services.bots)


async def _listed(services: Services, bot: str | None, number: int) -> ListPage[CampaignProgress]:
    def read() -> ListPage[CampaignProgress]:
        rows = services.campaigns.list(bot, most=PER_PAGE + 1, skip=(number - 1) * PER_PAGE)
        return ListPage(number, rows[:PER_PAGE], len(rows) > PER_PAGE)

    return await services.ask_campaigns(read)


async def show(request: Request) -> Response:
    """Show a campaign: its state, what became of its recipients, its plot, and a recipient if the URL names one."""
    services, name, chat = services_of(request), request.path_params["name"], request.query_params.get("chat", "")
    progress = await attempt(_progress(services, name))
    recipient = await attempt(_recipient(services, name, chat)) if chat and progress.value else None
    plot = await services.plots.look(name) if progress.value else None
    definition = _definition(progress.value) if progress.value and viewer_of(request).sees_texts else None
    return page(
        request,
        "campaign.html",
        name=name,
        progress=progress,
        possible=_POSSIBLE.get(str(progress.value.campaign.state), ()) if progress.value else (),
        plot=plot,
        chat=chat,
        recipient=recipient,
        definition=definition,
    )


async def live(request: Request) -> Response:
    """Stream what became of a campaign's recipients."""
    services, name = services_of(request), request.path_params["name"]
    await _progress(services, name)

    async def render() -> str:
        progress = await attempt(services.ask_campaigns(services.campaigns.progress, name))
        if progress.value is None:
            return fragment("problem_part.html", part=progress)
        return fragment("campaign_part.html", each=progress.value, campaign=progress.value.campaign)

    return services.live.stream(f"campaign {name}", render, LIVE_SECONDS)


async def plot(request: Request) -> Response:
    """Return the plot of a campaign: messages sent and refused over time."""
    pace = await services_of(request).plots.look(request.path_params["name"])
    if pace is None:
        return JSONResponse({"x": [], "series": []}, 202)
    return JSONResponse(plot_data(pace))


def plot_data(pace: CampaignPace) -> dict[str, Any]:
    """Return a plot as the pages' JavaScript reads it."""
    series = [{"label": "sent", "values": pace.sent}, {"label": "refused", "values": pace.refused}]
    return {"x": [each / 1000 for each in pace.began_ms], "series": series}


async def _progress(services: Services, name: str) -> CampaignProgress:
    try:
        return await services.ask_campaigns(services.campaigns.progress, name)
    except CampaignError as error:
        raise HTTPException(404, str(error)) from None


async def _recipient(services: Services, name: str, chat: str) -> Recipient | None:
    try:
        return await services.ask_campaigns(services.campaigns.find_recipient, name, chat)
    except InvalidParamsError as error:
        raise HTTPException(400, str(error)) from None


def _definition(progress: CampaignProgress) -> str:
    fields = progress.campaign.definition.model_dump(mode="json", exclude_defaults=True)
    return json.dumps(fields, indent=2, ensure_ascii=False)[:MOST_SHOWN_TEXT]
