"""Pausing and resuming a bot or a chat."""

from __future__ import annotations

from typing import Final

from floodgate.letters.criteria import chat_of, pause_span
from floodgate.web.actions.operation import ActionOutcome, ActionPlan, ActionRequest, Operation
from floodgate.web.rendering import duration

MOST_WHY: Final = 200
_CHAT: Final = ("chat", "chats")
_BOT: Final = ("bot", "bots")
_BOUND: Final = "One action pauses or resumes one bot or one chat."


async def _plan_pause(request: ActionRequest) -> ActionPlan:
    bot, chat, how_long, why = request.bot, _chat(request), pause_span(request.field("for")), _why(request)
    what = f"{_whom(bot, chat)}, for {request.field('for')}, reason: {why}"
    fields = [("bot", bot), ("chat", chat or ""), ("for", request.field("for")), ("why", why)]
    notes = [
        await _affected(request, bot, chat),
        f"Its jobs wait for {duration(how_long)}, unless you resume it before. They keep their order.",
    ]
    return ActionPlan(what, 1, _CHAT if chat else _BOT, _BOUND, fields, notes)


async def _pause(request: ActionRequest) -> ActionOutcome:
    bot, chat = request.bot, _chat(request)
    await request.services.ask_store(
        request.services.store.pause, bot, chat, pause_span(request.field("for")), _why(request)
    )
    return ActionOutcome(1, f"Paused: {_whom(bot, chat)}. A longer pause already in force stays.")


async def _plan_resume(request: ActionRequest) -> ActionPlan:
    bot, chat = request.bot, _chat(request)
    notes = [
        await _affected(request, bot, chat),
        "Its jobs are sent again within a minute. If Telegram asked for the pause, it may answer 429 again.",
    ]
    fields = [("bot", bot), ("chat", chat or "")]
    return ActionPlan(_whom(bot, chat), 1, _CHAT if chat else _BOT, _BOUND, fields, notes)


async def _resume(request: ActionRequest) -> ActionOutcome:
    bot, chat = request.bot, _chat(request)
    if await request.services.ask_store(request.services.store.resume, bot, chat):
        return ActionOutcome(1, f"Resumed: {_whom(bot, chat)}.")
    return ActionOutcome(0, f"There was no pause: {_whom(bot, chat)}.")


async def _affected(request: ActionRequest, bot: str, chat: str | None) -> str:
    if chat is not None:
        return f"Only chat {chat} is concerned; all others go on."
    waiting = sum((await request.services.ask_store(request.services.store.waiting, bot)).values())
    return f"All chats of bot {bot} are concerned. Jobs that wait in lines now: {waiting}."


def _chat(request: ActionRequest) -> str | None:
    return chat_of(request.field("chat") or None)


def _why(request: ActionRequest) -> str:
    return request.field("why")[:MOST_WHY] or "operator"


def _whom(bot: str, chat: str | None) -> str:
    return f"chat {chat} of bot {bot}" if chat else f"bot {bot}"


PAUSE = Operation("Pause", _plan_pause, _pause)
RESUME = Operation("Resume", _plan_resume, _resume)
