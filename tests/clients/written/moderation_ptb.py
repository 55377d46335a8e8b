"""A moderation bot: lets people in, warns and bans on command, pins the rules. Environment: API_ROOT, BOT_TOKEN."""

import os
from collections import Counter

from telegram import Update
from telegram.ext import Application, ChatJoinRequestHandler, CommandHandler, ContextTypes

WARNINGS: Counter[int] = Counter()
ROOT = os.environ["API_ROOT"]


async def let_in(update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
    request = update.chat_join_request
    await request.approve()
    await context.bot.send_message(request.chat.id, f"{request.from_user.mention_html()} is in", parse_mode="HTML")


async def warn(update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
    user = update.message.reply_to_message.from_user
    WARNINGS[user.id] += 1
    if WARNINGS[user.id] < 2:
        await update.message.reply_text(f"First warning for {user.first_name}")
        return
    await update.effective_chat.ban_member(user.id)
    await update.message.reply_text(f"{user.first_name} is banned")


async def rules(update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
    message = await update.effective_chat.send_message("Be kind.")
    await message.pin(disable_notification=True)


application = (
    Application.builder()
    .token(os.environ["BOT_TOKEN"])
    .base_url(f"{ROOT}/bot")
    .base_file_url(f"{ROOT}/file/bot")
    .build()
)
application.add_handler(ChatJoinRequestHandler(let_in))
application.add_handler(CommandHandler("warn", warn))
application.add_handler(CommandHandler("rules", rules))
application.run_polling(allowed_updates=Update.ALL_TYPES)
