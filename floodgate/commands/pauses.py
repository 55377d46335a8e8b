"""``floodgate pause`` and ``floodgate resume``."""

from __future__ import annotations

import contextlib
from typing import Annotated

import typer

from floodgate.broker.settings.model import Settings, load_settings
from floodgate.broker.state.stores import open_store
from floodgate.commands.options import EXIT_NO, Bot, say
from floodgate.letters.criteria import chat_of, pause_span

Chat = Annotated[str | None, typer.Option(help="Chat id or @name. Defaults to the whole bot.")]


def pause(
    for_: Annotated[str, typer.Option("--for", help="How long: 90s, 15m, 2h, 7d, 4w.")],
    bot: Bot = None,
    chat: Chat = None,
    why: Annotated[str, typer.Option(help="Reason to show in `floodgate status`.")] = "operator",
) -> None:
    """Stop sending to a chat, or for a whole bot, for a time. Jobs wait. A longer pause already in force stays.

    Example: floodgate pause --for 15m --chat 42
    """
    settings, key = load_settings(), chat_of(chat)
    bot = _known(settings, bot)
    duration = pause_span(for_)
    with contextlib.closing(open_store(settings)) as store:
        store.pause(bot, key, duration, why)
    say(f"Paused for {for_}: {_whom(bot, key)}.")


def resume(bot: Bot = None, chat: Chat = None) -> None:
    """End a pause now, even one that a 429 began. In that case Telegram may answer 429 again, which pauses it again.

    Jobs that the pause held up are sent within a minute, in their order. Exits with 1 if there was no pause.

    Example: floodgate resume --chat 42
    """
    settings, key = load_settings(), chat_of(chat)
    bot = _known(settings, bot)
    with contextlib.closing(open_store(settings)) as store:
        resumed = store.resume(bot, key)
    whom = _whom(bot, key)
    if not resumed:
        say(f"{whom[0].upper()}{whom[1:]} is not paused. `floodgate status` shows the pauses in force.")
        raise typer.Exit(EXIT_NO)
    say(f"Resumed: {whom}. Its jobs are sent again within a minute.")


def _known(settings: Settings, bot: str | None) -> str:
    settings.require_bots()
    bot = bot or settings.default_bot
    settings.token(bot)
    return bot


def _whom(bot: str, chat: str | None) -> str:
    return f"chat {chat} of bot {bot}" if chat else f"bot {bot}"
