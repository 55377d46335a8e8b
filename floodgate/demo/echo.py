"""The bot of ``floodgate demo --updates``, which repeats every message after a short delay."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from telegram import Update
from telegram.ext import Application, ContextTypes, MessageHandler, filters

from floodgate.broker.settings.model import load_settings

THINKING_SECONDS: Final = 0.1


async def echo(update: Update, _context: ContextTypes.DEFAULT_TYPE) -> None:
    """Answer a message with its own text."""
    assert update.message is not None and update.message.text is not None
    await asyncio.sleep(THINKING_SECONDS)
    await update.message.reply_text(update.message.text)


def application() -> Application[Any, Any, Any, Any, Any, Any]:
    """Build the bot with the only token in the demo's environment."""
    (token,) = load_settings().tokens.values()
    built = Application.builder().token(token.get_secret_value()).build()
    built.add_handler(MessageHandler(filters.TEXT, echo))
    return built
