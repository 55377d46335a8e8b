"""One chat: why does it wait, for how long, and where does one of its jobs stand?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from floodgate.broker.admission.contract import ChatExplanation, Scope
from floodgate.broker.errors import InvalidParamsError
from floodgate.letters.criteria import chat_of
from floodgate.web.pages.choice import named_bot
from floodgate.web.rendering import fragment, page
from floodgate.web.service_threads import PartOfPage, attempt
from floodgate.web.services import Services, services_of

LIVE_SECONDS: Final = 2.0
MOST_ID: Final = 200
_CAUSES: Final[Mapping[tuple[str, Scope | None], str]] = {
    ("rate", Scope.BOT): "The bot is at its limit: other chats' messages use it now.",
    (
        "rate",
        Scope.CHAT,
    ): "The chat is at its own limit: about one message a second and 20 a minute in a group, or less if it is slowed.",
    ("pause", Scope.BOT): "The bot is paused.",
    ("pause", Scope.CHAT): "The chat is paused.",
    ("outage", Scope.BOT): "Telegram does not answer. One call at a time is tried until one is answered.",
    ("line", Scope.CHAT): "Earlier jobs of the chat go first.",
    ("in-flight", Scope.CHAT): "A call to the chat is under way, and there is never more than one.",
    ("unreachable", Scope.CHAT): "Telegram has refused the chat, so its jobs fail without a call.",
}


async def show(request: Request) -> Response:
    """Show why a chat waits."""
    services, bot, chat, job = _asked(request)
    explained = await _explain(services, bot, chat, job)
    return page(request, "chat.html", **_facts(bot, chat, job, explained))


async def live(request: Request) -> Response:
    """Stream why a chat waits."""
    services, bot, chat, job = _asked(request)

    async def render() -> str:
        return fragment("chat_part.html", **_facts(bot, chat, job, await _explain(services, bot, chat, job)))

    return services.live.stream(f"chat {bot} {chat} {job}", render, LIVE_SECONDS)


def why_it_waits(explained: ChatExplanation) -> str:
    """Return the first cause as a sentence."""
    if explained.why is None:
        return "Nothing holds this chat up: a job could be sent now."
    return _CAUSES.get((explained.why, explained.scope), f"It waits: {explained.why}.")


def _asked(request: Request) -> tuple[Services, str, str, str]:
    try:
        chat = chat_of(request.path_params["chat"])
    except InvalidParamsError as error:
        raise HTTPException(404, str(error)) from None
    return services_of(request), named_bot(request), str(chat), request.query_params.get("job", "").strip()[:MOST_ID]


async def _explain(services: Services, bot: str, chat: str, job: str) -> PartOfPage[ChatExplanation]:
    return await attempt(services.ask_store(services.store.explain, bot, chat, job or None))


def _facts(bot: str, chat: str, job: str, explained: PartOfPage[ChatExplanation]) -> dict[str, Any]:
    why = why_it_waits(explained.value) if explained.value else None
    return {"bot": bot, "chat": chat, "job": job, "explained": explained, "why": why}
