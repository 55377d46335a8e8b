"""An echo bot with python-telegram-bot. The three lines with `GATEWAY` make it flood-safe."""

import os

from telegram import Update
from telegram.ext import Application, ContextTypes, MessageHandler, filters

GATEWAY = os.environ.get("GATEWAY_URL", "http://127.0.0.1:8080")


async def echo(update: Update, _context: ContextTypes.DEFAULT_TYPE) -> None:
    assert update.message is not None
    await update.message.reply_text(f"You said: {update.message.text}")


def main() -> None:
    application = (
        Application.builder()
        .token(os.environ["BOT_TOKEN"])
        .base_url(f"{GATEWAY}/bot")
        .base_file_url(f"{GATEWAY}/file/bot")
        .read_timeout(70)  # a call waits until its message has been sent
        .concurrent_updates(True)
        .build()
    )
    application.add_handler(MessageHandler(filters.TEXT, echo))
    application.run_polling(timeout=5)


if __name__ == "__main__":
    main()
