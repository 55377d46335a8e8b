"""The route of each Bot API method at the gateway: queued, passed through or refused.

A method that counts towards one of Telegram's limits is queued as a job. All others pass through, since a queue would
only delay them. Two methods are refused. docs/gateway.md shows the table, which follows from that of methods.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from floodgate.broker.messages.method_table import METHODS, BotApiMethod, Charge


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
        Charge.TYPING: (Route.QUEUED, "typing and drafts: have a budget of their own, and end as shed when late"),
        Charge.ANSWER: (Route.PASSED, "has no limit here: a queue would only delay it"),
        Charge.FREE: (Route.PASSED, "has no limit here: a queue would only delay it"),
        Charge.UNQUEUED: (Route.PASSED, "receiving"),
    }
)

_EXCEPTIONS: Final[Mapping[str, tuple[Route, str]]] = MappingProxyType(
    {
        "getUpdates": (Route.PASSED, "receiving: Telegram allows one caller at a time"),
        "logOut": (Route.REFUSED, "it would lock the workers out: call the Bot API itself"),
        "close": (Route.REFUSED, "it would stop the bot under the workers: call the Bot API itself"),
    }
)


def route_of(method: BotApiMethod) -> MethodRoute:
    """Return the route of a method, which follows from its class."""
    return MethodRoute(method.name, *(_EXCEPTIONS.get(method.name) or _BY_CHARGE[method.charge]))


TABLE: Final[Mapping[str, MethodRoute]] = MappingProxyType(
    {name: route_of(method) for name, method in sorted(METHODS.items())}
)
