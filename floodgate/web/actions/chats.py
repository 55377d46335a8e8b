"""Marking an unreachable chat reachable."""

from __future__ import annotations

from floodgate.broker.errors import InvalidParamsError
from floodgate.letters.criteria import chat_of
from floodgate.web.actions.operation import ActionOutcome, ActionPlan, ActionRequest, Operation


async def _plan(request: ActionRequest) -> ActionPlan:
    bot, chat = _named(request)
    notes = ["Its jobs are sent again. If Telegram refuses the chat once more, it is marked unreachable again."]
    bound = "One action marks one chat."
    return ActionPlan(f"chat {chat} of bot {bot}", 1, ("chat", "chats"), bound, [("bot", bot), ("chat", chat)], notes)


async def _clear(request: ActionRequest) -> ActionOutcome:
    bot, chat = _named(request)
    if await request.services.ask_store(request.services.store.heard_from, bot, chat):
        return ActionOutcome(1, f"Chat {chat} of bot {bot} is reachable again.")
    return ActionOutcome(0, f"Chat {chat} of bot {bot} was not marked unreachable.")


def _named(request: ActionRequest) -> tuple[str, str]:
    bot, chat = request.bot, chat_of(request.field("chat") or None)
    if chat is None:
        raise InvalidParamsError("No chat is named: write its id or @name.")
    return bot, chat


CLEAR = Operation("Mark reachable", _plan, _clear)
