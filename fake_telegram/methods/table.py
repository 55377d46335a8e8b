"""A row of the method table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from floodgate.fake_telegram.calls import Call
from floodgate.fake_telegram.errors import ApiError
from floodgate.fake_telegram.limits import CallCost
from floodgate.fake_telegram.world import World

MethodHandler = Callable[[World, Call], Any]


class Effect(Enum):
    """The kinds of methods, which determine the limits of a call.

    Telegram: sends, edits and forum-topic creation count together for a group; typing and drafts have limits of their
    own; answers are not limited at all.
    """

    MESSAGE = "message"  # bot, chat, group
    EDIT = "edit"  # bot, chat, group; of an inline message: bot
    ACTION = "action"  # bot
    TYPING = "typing"  # the chat's typing
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Method:
    """A method. ``counted_by`` names the array whose length is the cost; ``can_pay``: it has `allow_paid_broadcast`."""

    name: str
    handler: MethodHandler
    effect: Effect = Effect.NONE
    counted_by: str = ""
    can_pay: bool = False

    @property
    def writes(self) -> bool:
        """Whether the method changes a chat, and so is affected by the chat's troubles."""
        return self.effect is not Effect.NONE

    def charge(self, call: Call) -> CallCost | None:
        """Return the cost of a call and the windows it is charged to; None if it has no limit."""
        if self.effect is Effect.NONE:
            return None
        if self.effect is Effect.TYPING:
            return CallCost(typing=True)
        in_chat = self.effect is not Effect.ACTION and not call.has("inline_message_id")
        paid = self.can_pay and call.flag("allow_paid_broadcast")
        edit = self.effect is Effect.EDIT
        return CallCost(cost=self._cost(call), chat=in_chat, paid=paid, edit=edit)

    def _cost(self, call: Call) -> int:
        if not self.counted_by:
            return 1
        try:
            return max(1, len(call.array(self.counted_by, self.counted_by)))
        except ApiError:
            return 1  # the handler will refuse the call with the right error
