"""Bots: the list, and one bot with its pauses and longest lines."""

from __future__ import annotations

import asyncio
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from floodgate.broker.errors import InvalidParamsError
from floodgate.letters.criteria import chat_of
from floodgate.web.pages.choice import chosen_bot, named_bot
from floodgate.web.pages.plots import plots_of, span_choice
from floodgate.web.picture import picture_of
from floodgate.web.rendering import fragment, page
from floodgate.web.services import services_of

LIVE_SECONDS: Final = 2.0


async def show_list(request: Request) -> Response:
    """List the bots."""
    return page(request, "bots.html", picture=await picture_of(request).look())


async def show(request: Request) -> Response:
    """Show one bot."""
    bot = named_bot(request)
    each, plots = await asyncio.gather(
        picture_of(request).of_bot(bot), plots_of(request, bot, ("rate", "waits", "waiting"))
    )
    return page(request, "bot.html", each=each, plots=plots, **span_choice(request))


async def live(request: Request) -> Response:
    """Stream the live part of a bot's page."""
    bot, picture = named_bot(request), picture_of(request)

    async def render() -> str:
        return fragment("bot_part.html", each=await picture.of_bot(bot))

    return services_of(request).live.stream(f"bot {bot}", render, LIVE_SECONDS)


async def find_chat(request: Request) -> Response:
    """Lead from a form to the page of a chat."""
    bot = chosen_bot(request)
    try:
        chat = chat_of(request.query_params.get("chat", "").strip() or None)
    except InvalidParamsError as error:
        raise HTTPException(400, str(error)) from None
    if bot is None or chat is None:
        raise HTTPException(400, "Choose a bot, and write the chat's id or @name.")
    return RedirectResponse(request.url_for("chat", bot=bot, chat=chat).path, 303)
