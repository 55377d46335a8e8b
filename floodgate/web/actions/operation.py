"""The parts of an action: its plan, its outcome, and the functions that make them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from starlette.datastructures import QueryParams

from floodgate.broker.errors import UnknownBotError
from floodgate.broker.settings.model import unknown_bot_message
from floodgate.web.rendering import number
from floodgate.web.services import Services
from floodgate.web.viewer import Viewer


@dataclass(frozen=True, slots=True)
class ActionPlan:
    """What an action is going to do."""

    what: str
    """For the audit log and the page, as in ``chat 42 of bot news, for 15m``. Holds no text of a message."""
    touches: int
    """How many things it touches at most."""
    unit: tuple[str, str]
    """What one and several of these are called, as in ``("dead letter", "dead letters")``."""
    bound: str
    """The most that one such action can touch, in a sentence."""
    fields: Sequence[tuple[str, str]]
    """The fields of the form that confirms it."""
    notes: Sequence[str] = ()
    is_ready: bool = True
    """Whether it is known yet how many things it touches."""

    @property
    def things(self) -> str:
        """What it touches, in words."""
        one, many = self.unit
        return f"{number(self.touches)} {one if self.touches == 1 else many}"


@dataclass(frozen=True, slots=True)
class ActionOutcome:
    """What an action has done."""

    touched: int
    said: str


@dataclass(frozen=True, slots=True)
class ActionRequest:
    """Who wants an action, and the fields of the URL or form."""

    services: Services
    viewer: Viewer
    params: QueryParams

    def field(self, name: str) -> str:
        """Return a field without the spaces around it; empty if it is missing."""
        return (self.params.get(name) or "").strip()

    @property
    def bot(self) -> str:
        """The bot that is named.

        Raises:
            UnknownBotError: it is not configured.
        """
        bot, known = self.field("bot"), self.services.settings.tokens
        if bot not in known:
            raise UnknownBotError(unknown_bot_message(bot, known))
        return bot


Plan: TypeAlias = Callable[[ActionRequest], Awaitable[ActionPlan]]
Act: TypeAlias = Callable[[ActionRequest], Awaitable[ActionOutcome]]


@dataclass(frozen=True, slots=True)
class Operation:
    """An action as the pages offer it. Both functions raise a ``FloodgateError`` if the action is not possible."""

    label: str
    """The verb on its button."""
    plan: Plan
    act: Act
