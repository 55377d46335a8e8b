"""The bot of `test_full_windows`: each chat's data lists the numbers that its handlers have received.

`LISTENER_HOME` is a folder shared by all workers, with the journal of `tests.acceptance.updates.journal`. While it
contains a file `hold`, a handler that receives a number from `LISTENER_HELD_FROM` on does not return.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from telegram import Update
from telegram.ext import Application, ContextTypes, MessageHandler, filters

from floodgate import SharedPersistence
from tests.acceptance.stage import TOKEN

LOOK_SECONDS = 0.01
# Between reading and writing a chat's data, so that two concurrent handlers of one chat would lose a number.
THINKING_SECONDS = 0.05

home = Path(os.environ["LISTENER_HOME"])
held_from = int(os.environ["LISTENER_HELD_FROM"])
journal = os.open(home / "journal", os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def note(event: str, update_id: int, text: str) -> None:
    """Writes one line with one call, so that a SIGKILL leaves only complete lines."""
    os.write(journal, f"{event} {os.getpid()} {update_id} {text} {time.monotonic()}\n".encode())


async def listen(update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
    assert update.message is not None and update.message.text is not None and context.chat_data is not None
    text = update.message.text
    note("begin", update.update_id, text)
    number = int(text.partition(":")[2])
    heard = list(context.chat_data.get("heard", []))
    await asyncio.sleep(THINKING_SECONDS)
    while number >= held_from and (home / "hold").exists():  # noqa: ASYNC110  # another process removes it
        await asyncio.sleep(LOOK_SECONDS)
    context.chat_data["heard"] = [*heard, number]
    note("end", update.update_id, text)


application = Application.builder().token(TOKEN).persistence(SharedPersistence()).build()
application.add_handler(MessageHandler(filters.TEXT, listen))
