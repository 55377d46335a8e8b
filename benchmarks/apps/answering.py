"""A bot that works for a while and answers a message with itself, as an Application and as a plain function.

The work is BENCH_WORK_SECONDS, none for a message that begins with "warm", BENCH_SLOW_SECONDS for one that begins with
"slow". With BENCH_BLOCKING it keeps the event loop to itself, as a database driver that is not async does.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any, Final

from telegram import Update as TelegramUpdate
from telegram.ext import Application, ContextTypes, MessageHandler, filters

from floodgate import AsyncClient, Update, on_update

WORK_SECONDS: Final = float(os.environ.get("BENCH_WORK_SECONDS", "0.1"))
SLOW_SECONDS: Final = float(os.environ.get("BENCH_SLOW_SECONDS", "60"))
BLOCKING: Final = "BENCH_BLOCKING" in os.environ


async def work(text: str) -> None:
    seconds = {"warm": 0.0, "slow": SLOW_SECONDS}.get(text[:4], WORK_SECONDS)
    if BLOCKING:
        time.sleep(seconds)  # noqa: ASYNC251
    else:
        await asyncio.sleep(seconds)


async def answer(update: TelegramUpdate, context: ContextTypes.DEFAULT_TYPE) -> None:
    message = update.message
    assert message is not None and message.text is not None
    await work(message.text)
    await message.reply_text(message.text)


def application() -> Application[Any, Any, Any, Any, Any, Any]:
    """The Application that `floodgate worker --updates answering:application` runs."""
    made = Application.builder().token(os.environ["BENCH_TOKEN"]).build()
    made.add_handler(MessageHandler(filters.TEXT, answer))
    return made


@on_update
async def plain(update: Update, client: AsyncClient) -> None:
    message = update.body["message"]
    await work(message["text"])
    await client.send_message(chat_id=message["chat"]["id"], text=message["text"], dedupe_key=update.message_id)
