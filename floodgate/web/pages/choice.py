"""The bot that a URL names."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request

from floodgate.broker.settings.model import unknown_bot_message
from floodgate.web.services import services_of


def chosen_bot(request: Request) -> str | None:
    """Return the bot in the path or the query; None if there is none.

    Raises:
        HTTPException: 404, because no bot of this name is configured.
    """
    bot = request.path_params.get("bot") or request.query_params.get("bot") or None
    known = services_of(request).settings.tokens
    if bot is not None and bot not in known:
        raise HTTPException(404, unknown_bot_message(bot, known))
    return bot


def named_bot(request: Request) -> str:
    """Return the bot in the path.

    Raises:
        HTTPException: 404, because no bot of this name is configured.
    """
    bot = chosen_bot(request)
    assert bot is not None, "the route has no bot"
    return bot
