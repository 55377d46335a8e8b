"""The route of each Bot API method at the gateway: queued, passed through or refused.

A method that counts towards one of Telegram's limits is queued as a job. All others pass through, since a queue would
only delay them. Two methods are refused. docs/gateway.md shows the table; a test compares it with the newest
python-telegram-bot.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from floodgate.broker.messages.methods import CHARGES, NOT_JOBS, Charge


class Route(StrEnum):
    """What the gateway does with a call."""

    QUEUED = "queued"
    PASSED = "passed through"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class MethodRoute:
    """A method's route and the reason for it."""

    method: str
    route: Route
    why: str


_BY_CHARGE: Final[Mapping[Charge, tuple[Route, str]]] = MappingProxyType(
    {
        Charge.MESSAGE: (Route.QUEUED, "a new message: counts for the bot, the chat and the group"),
        Charge.EDIT: (Route.QUEUED, "an edit: counts for the bot, the chat and the group"),
        Charge.ACTION: (Route.QUEUED, "acts in a chat: counts for the bot"),
        Charge.ANSWER: (Route.PASSED, "has no limit here: a queue would only delay it"),
        Charge.FREE: (Route.PASSED, "has no limit here: a queue would only delay it"),
    }
)

_OTHERS: Final[Mapping[str, tuple[Route, str]]] = MappingProxyType(
    {
        "getUpdates": (Route.PASSED, "receiving: Telegram allows one caller at a time"),
        "setWebhook": (Route.PASSED, "receiving"),
        "deleteWebhook": (Route.PASSED, "receiving"),
        "getWebhookInfo": (Route.PASSED, "receiving"),
        "logOut": (Route.REFUSED, "it would lock the workers out: call the Bot API itself"),
        "close": (Route.REFUSED, "it would stop the bot under the workers: call the Bot API itself"),
    }
)

assert _OTHERS.keys() == NOT_JOBS

_ROUTES: Final = {**{name: _BY_CHARGE[charge] for name, charge in CHARGES.items()}, **_OTHERS}
TABLE: Final[Mapping[str, MethodRoute]] = MappingProxyType(
    {method.lower(): MethodRoute(method, *route) for method, route in sorted(_ROUTES.items())}
)


def route_of(name: str) -> MethodRoute | None:
    """Look up a method's route by its name, ignoring case as Telegram does; None if the method is unknown.

    A method that is newer than this version of Floodgate may count towards a limit, so it is not passed through.
    """
    return TABLE.get(name.lower())
