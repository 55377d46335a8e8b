"""An assistant that shows its answer while it writes it, with python-telegram-bot, on any number of machines.

floodgate updates                                      receives its updates
floodgate worker --updates assistant_ptb:application   runs its handlers; start as many as you like
floodgate worker                                       sends what they write, within Telegram's limits
"""

import os

from local_model import tokens
from telegram import Update
from telegram.ext import Application, CommandHandler, ContextTypes, MessageHandler, filters

from floodgate import stream_reply


async def start(update: Update, _context: ContextTypes.DEFAULT_TYPE) -> None:
    assert update.message is not None
    await update.message.reply_text("Ask me anything.")


async def answer(update: Update, _context: ContextTypes.DEFAULT_TYPE) -> None:
    assert update.message is not None and update.message.text is not None
    broken_off = "\n\n(The answer breaks off here. Please ask again.)"
    async with stream_reply(update.message, formatting="markdown", on_error=broken_off) as reply:
        async for token in tokens(update.message.text):
            await reply.append(token)


application = Application.builder().token(os.environ["FLOODGATE_BOT_TOKEN"]).build()
application.add_handler(CommandHandler("start", start))
application.add_handler(MessageHandler(filters.TEXT & ~filters.COMMAND, answer))
