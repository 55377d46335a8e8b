"""An echo bot on any number of machines. It is an ordinary Application, which knows nothing about Floodgate.

floodgate updates                                      receives its updates
floodgate worker --updates echo_bot:application        handles them; start as many as you like
floodgate worker                                       sends its answers, within Telegram's limits
"""

import os

from telegram import Update
from telegram.ext import Application, CommandHandler, ContextTypes, MessageHandler, filters


async def start(update: Update, _context: ContextTypes.DEFAULT_TYPE) -> None:
    assert update.message is not None
    await update.message.reply_text("Hello! Say something, and I will repeat it.")


async def echo(update: Update, _context: ContextTypes.DEFAULT_TYPE) -> None:
    assert update.message is not None and update.message.text is not None
    sent = await update.message.reply_text(update.message.text)
    assert sent.message_id  # this is the real message, as Telegram returned it


application = Application.builder().token(os.environ["FLOODGATE_BOT_TOKEN"]).build()
application.add_handler(CommandHandler("start", start))
application.add_handler(MessageHandler(filters.TEXT & ~filters.COMMAND, echo))
