"""A bot that takes an order in three steps and remembers earlier orders, whichever worker handles the chat.

`SharedPersistence` keeps conversations and data in the state store, so a worker may join, leave or crash between two
steps.

    floodgate updates & floodgate worker & floodgate worker --updates conversation_bot:application
"""

import os

from telegram import Update
from telegram.ext import Application, CommandHandler, ContextTypes, ConversationHandler, MessageHandler, filters

from floodgate import SharedPersistence

SIZE, ADDRESS = range(2)
Context = ContextTypes.DEFAULT_TYPE


async def order(update: Update, context: Context) -> int:
    assert update.message is not None and context.chat_data is not None
    earlier = context.chat_data.get("orders", 0)
    greeting = f"Pizza number {earlier + 1}!" if earlier else "Your first pizza!"
    await update.message.reply_text(f"{greeting} Small or large?")
    return SIZE


async def size(update: Update, context: Context) -> int:
    assert update.message is not None and context.chat_data is not None
    context.chat_data["size"] = update.message.text
    await update.message.reply_text("Where to?")
    return ADDRESS


async def address(update: Update, context: Context) -> int:
    assert update.message is not None and context.chat_data is not None
    context.chat_data["orders"] = context.chat_data.get("orders", 0) + 1
    await update.message.reply_text(f"A {context.chat_data['size']} pizza comes to {update.message.text}.")
    return ConversationHandler.END


async def cancel(update: Update, _context: Context) -> int:
    assert update.message is not None
    await update.message.reply_text("No pizza, then.")
    return ConversationHandler.END


application = Application.builder().token(os.environ["FLOODGATE_BOT_TOKEN"]).persistence(SharedPersistence()).build()
answer = filters.TEXT & ~filters.COMMAND
application.add_handler(
    ConversationHandler(
        entry_points=[CommandHandler("order", order)],
        states={SIZE: [MessageHandler(answer, size)], ADDRESS: [MessageHandler(answer, address)]},
        fallbacks=[CommandHandler("cancel", cancel)],
        name="order",
        persistent=True,
    )
)
