"""A bot controlled by its messages, loaded by handler workers in the usual way. A message's first word is a command."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from telegram import Update
from telegram.error import BadRequest, TelegramError
from telegram.ext import Application, CallbackQueryHandler, ContextTypes, MessageHandler, filters

from floodgate import stream_reply
from tests.acceptance.stage import TOKEN

Context = ContextTypes.DEFAULT_TYPE
tries: dict[int, int] = {}


class BrokenError(Exception):
    """The error this bot fails with."""


async def echo(update: Update, context: Context, words: list[str]) -> None:
    assert update.message is not None
    sent = await update.message.reply_text(" ".join(words))
    await update.message.reply_text(f"that was message {sent.message_id} in {sent.chat.id}")


async def count(update: Update, context: Context, words: list[str]) -> None:
    """Reads twice and writes twice, as two concurrent updates of one chat would do."""
    assert update.message is not None and context.chat_data is not None
    seen = context.chat_data.get("seen", 0)
    await asyncio.sleep(0.02)
    context.chat_data["seen"] = seen + 1
    if words:
        await update.message.reply_text(f"counted {seen + 1}")


async def flaky(update: Update, context: Context, words: list[str]) -> None:
    """Sends a message, and fails the first two times."""
    assert update.message is not None
    tries[update.update_id] = tries.get(update.update_id, 0) + 1
    await update.message.reply_text("working on it")
    if tries[update.update_id] < 3:
        raise BrokenError("not yet")
    await update.message.reply_text("done at last")


async def stream(update: Update, context: Context, words: list[str]) -> None:
    """Streams its words, and fails the first two times."""
    assert update.message is not None
    tries[update.update_id] = tries.get(update.update_id, 0) + 1
    async with stream_reply(update.message) as message:
        for word in words:
            await message.append(f"{word} ")
            await asyncio.sleep(0.01)
        if tries[update.update_id] < 3:
            raise BrokenError("not yet")
    await update.message.reply_text("streamed")


async def broken(update: Update, context: Context, words: list[str]) -> None:
    raise BrokenError(f"never, not with {TOKEN}")


async def newer(update: Update, context: Context, words: list[str]) -> None:
    """Calls methods that neither library knows."""
    assert update.message is not None
    errors = []
    for word in words:
        try:
            await context.bot.do_api_request(word, {"chat_id": update.message.chat_id, "text": "hi"})
        except TelegramError as error:
            errors.append(type(error).__name__)
    await update.message.reply_text(" ".join(errors))


async def leave(update: Update, context: Context, words: list[str]) -> None:
    raise {"SystemExit": SystemExit, "KeyboardInterrupt": KeyboardInterrupt}[words[0]](7)


async def block(update: Update, context: Context, words: list[str]) -> None:
    time.sleep(1.5)  # noqa: ASYNC251  # the mistake that is to be reported


async def slow(update: Update, context: Context, words: list[str]) -> None:
    assert update.message is not None
    await update.message.reply_text("begun")
    await asyncio.sleep(60)


async def upload(update: Update, context: Context, words: list[str]) -> None:
    assert update.message is not None
    sent = await update.message.reply_document(b"column\n1\n", filename="report.csv", caption="your report")
    assert sent.document is not None
    await update.message.reply_text(f"sent {sent.document.file_name}, {sent.document.file_size} bytes")


async def refused(update: Update, context: Context, words: list[str]) -> None:
    assert update.message is not None
    try:
        await context.bot.send_message(chat_id=int(words[0]), text="to nobody")
    except TelegramError as error:
        await update.message.reply_text(f"{type(error).__name__}: {error.message}")


async def edit_the_same(update: Update, context: Context, words: list[str]) -> None:
    assert update.message is not None
    sent = await update.message.reply_text("as it is")
    try:
        await sent.edit_text("as it is")
    except BadRequest as error:
        await update.message.reply_text(error.message)


async def press(update: Update, context: Context) -> None:
    assert update.callback_query is not None
    started = time.monotonic()
    await update.callback_query.answer("pressed")
    context.application.bot_data["answered_seconds"] = time.monotonic() - started


ORDERS: dict[str, Any] = {
    "echo": echo,
    "count": count,
    "flaky": flaky,
    "stream": stream,
    "broken": broken,
    "leave": leave,
    "newer": newer,
    "block": block,
    "slow": slow,
    "upload": upload,
    "refused": refused,
    "edit": edit_the_same,
}


async def obey(update: Update, context: Context) -> None:
    assert update.message is not None and update.message.text is not None
    order, *words = update.message.text.split()
    await ORDERS[order](update, context, words)


async def apologise(update: object, context: Context) -> None:
    """An error handler, called once for an update that has finally failed."""
    if isinstance(update, Update) and update.message is not None:
        await update.message.reply_text(f"sorry: {type(context.error).__name__}")


application = Application.builder().token(TOKEN).build()
application.add_handler(MessageHandler(filters.TEXT, obey))
application.add_handler(CallbackQueryHandler(press))
application.add_error_handler(apologise)
