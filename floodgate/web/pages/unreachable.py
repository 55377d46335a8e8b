"""The chats that Telegram refuses."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from floodgate.broker.admission.contract import UnreachableChat
from floodgate.web.pages.choice import chosen_bot
from floodgate.web.paging import PER_PAGE, ListPage, number_of, read_ahead
from floodgate.web.rendering import page
from floodgate.web.service_threads import attempt
from floodgate.web.services import Services, services_of


async def show(request: Request) -> Response:
    """List a bot's unreachable chats, the latest first."""
    services = services_of(request)
    bot = chosen_bot(request) or services.settings.default_bot
    chats = await attempt(_unreachable(services, bot, number_of(request)))
    return page(request, "unreachable.html", bot=bot, bots=services.bots, chats=chats)


async def _unreachable(services: Services, bot: str, number: int) -> ListPage[UnreachableChat]:
    rows = await services.ask_store(services.store.unreachable, bot, PER_PAGE + 1, (number - 1) * PER_PAGE)
    return read_ahead(rows, number)
