"""The bot of these tests, loaded by handler workers in the usual way: it counts each chat's messages and answers.

`CLERK_HOME` is a folder shared by all workers. Its journal is written line by line, each with a single `write`, so a
SIGKILL leaves only complete lines. A chat's count is read and, after a short pause, written:
two concurrent handlers of one chat would lose one of its messages.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from telegram import Update
from telegram.ext import Application, ContextTypes, MessageHandler, filters

from tests.acceptance.stage import TOKEN

THINKING_SECONDS = 0.02


class Desk:
    """The folder, as seen by this process. Event loop only."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._journal = os.open(home / "journal", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(self, event: str, update_id: int, text: str) -> None:
        line = f"{event} {os.getpid()} {update_id} {text} {time.monotonic()}\n"
        os.write(self._journal, line.encode())

    async def count(self, chat: int) -> int:
        """Counts one more message of the chat; returns the count."""
        session = self._home / f"chat-{chat}"
        seen = int(session.read_text()) if session.exists() else 0
        await asyncio.sleep(THINKING_SECONDS)
        written = self._home / f"writing-{os.getpid()}-{chat}"
        written.write_text(str(seen + 1))
        written.replace(session)  # atomic: these workers are killed at any moment
        return seen + 1


desk = Desk(Path(os.environ["CLERK_HOME"]))


async def answer(update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
    message = update.message
    assert message is not None and message.text is not None
    desk.note("begin", update.update_id, message.text)
    await desk.count(message.chat_id)
    sent = await message.reply_text(f"re {message.text}")
    assert sent.message_id and sent.chat_id == message.chat_id
    desk.note("end", update.update_id, message.text)


application = Application.builder().token(TOKEN).build()
application.add_handler(MessageHandler(filters.TEXT, answer))
