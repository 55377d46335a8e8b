"""One chat: why does it wait?"""

from __future__ import annotations

from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from floodgate.broker.errors import InvalidParamsError
from floodgate.letters.criteria import chat_of
from floodgate.web.pages.choice import named_bot
from floodgate.web.picture import picture_of
from floodgate.web.rendering import page
from floodgate.web.service_threads import attempt
from floodgate.web.services import services_of

LIVE_SECONDS: Final = 2.0


async def show(request: Request) -> Response:
    """Show why a chat waits."""
    services, bot = services_of(request), named_bot(request)
    try:
        chat = chat_of(request.path_params["chat"])
    except InvalidParamsError as error:
        raise HTTPException(404, str(error)) from None
    unreachable = await attempt(services.ask_store(services.store.unreachable_among, bot, [chat]))
    return page(request, "chat.html", chat=chat, each=await picture_of(request).of_bot(bot), unreachable=unreachable)
