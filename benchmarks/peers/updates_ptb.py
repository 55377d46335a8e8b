"""python-telegram-bot alone, ``concurrent_updates(True)``: 100 ms of work, one reply. Arguments: URL, token.

With BENCH_BLOCKING the work keeps the event loop to itself, as a database driver that is not async does.
"""

import asyncio
import os
import sys
import time

from telegram import Update
from telegram.ext import Application, ContextTypes, MessageHandler, filters

BLOCKING = "BENCH_BLOCKING" in os.environ


async def answer(update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
    message = update.message
    assert message is not None and message.text is not None
    if BLOCKING:
        time.sleep(0.1)  # noqa: ASYNC251
    else:
        await asyncio.sleep(0.1)
    await message.reply_text(message.text)


async def tell(application: object) -> None:
    print("receiving", flush=True)


def main(url: str, token: str) -> None:
    builder = Application.builder().token(token).base_url(f"{url}/bot").concurrent_updates(True).post_init(tell)
    application = builder.build()
    application.add_handler(MessageHandler(filters.TEXT, answer))
    application.run_polling(bootstrap_retries=5)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
