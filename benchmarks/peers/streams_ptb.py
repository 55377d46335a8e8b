"""python-telegram-bot as a streaming assistant. Arguments: URL, token, load, and one of three ways.

``each``: an edit for each token, and one after the other: what a first version does.
``limiter``: ``AIORateLimiter``, and an edit with the newest text as soon as the one before is answered.
``throttle``: an edit with the newest text when the last one in this chat is a second old: what most bots do.

All of them wait as long as a 429 says and go on, and repeat the last text of a message until it is shown: more patience
than bots have that are found in the wild.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from telegram import Bot, Message
from telegram.constants import MessageLimit
from telegram.error import BadRequest, RetryAfter, TimedOut
from telegram.ext import AIORateLimiter, ExtBot
from telegram.request import HTTPXRequest

from benchmarks.stage.streams import Answer, StreamLoad, perform

LONGEST: Final = MessageLimit.MAX_TEXT_LENGTH
MAX_RETRIES: Final = 100
THROTTLE_SECONDS: Final = 1.0


async def patiently(call: Callable[[], Awaitable[Any]]) -> Any:
    """Call, wait as told and call again, until it is answered otherwise than by 429."""
    while True:
        try:
            return await call()
        except RetryAfter as refused:
            await asyncio.sleep(_seconds(refused))
        except TimedOut:
            continue


def _seconds(refused: RetryAfter) -> float:
    after = refused.retry_after
    return after.total_seconds() if isinstance(after, timedelta) else float(after)


@dataclass(slots=True)
class Writing:
    """The message of a chat that is being written: sent once, then edited."""

    bot: Bot
    chat: int
    text: str = ""
    shown: str = ""
    shown_at: float = field(default=float("-inf"))
    _message: Message | None = None

    async def show(self) -> None:
        """Show the text; after a 429, wait, and leave it to the next one."""
        try:
            await self._put()
        except RetryAfter as refused:
            await asyncio.sleep(_seconds(refused))
        except TimedOut:
            pass

    async def finish(self) -> None:
        """Show the text, however long it takes."""
        if self.text != self.shown:
            await patiently(self._put)

    async def _put(self) -> None:
        text = self.text
        if self._message is None:
            self._message = await self.bot.send_message(self.chat, text)
        else:
            await self._edit(self._message, text)
        self.shown, self.shown_at = text, time.monotonic()

    async def _edit(self, message: Message, text: str) -> None:
        try:
            await self.bot.edit_message_text(text, self.chat, message.message_id)
        except BadRequest as refused:
            if "not modified" not in str(refused):
                raise


def is_due(how: str, writing: Writing, answer: Answer) -> bool:
    """Whether the text is to be shown now."""
    if how == "each":
        return True
    if how == "limiter":
        return not answer.has_more_now
    return not answer.has_more_now and time.monotonic() - writing.shown_at >= THROTTLE_SECONDS


async def main(url: str, token: str, load: StreamLoad, how: str) -> None:
    """Perform with one bot, as its documentation sets it up."""
    request = HTTPXRequest(connection_pool_size=256, pool_timeout=600, read_timeout=60, connect_timeout=60)
    limiter = AIORateLimiter(max_retries=MAX_RETRIES) if how == "limiter" else None
    bot: Bot = ExtBot(token, base_url=f"{url}/bot", request=request, rate_limiter=limiter)

    async def stream(chat: int, answer: Answer) -> None:
        writing = Writing(bot, chat)
        async for word in answer:
            if len(writing.text) + len(word) > LONGEST:
                await writing.finish()
                writing = Writing(bot, chat)
            writing.text += word
            if is_due(how, writing, answer):
                await writing.show()
        await writing.finish()

    async def reply(chat: int, text: str) -> None:
        await patiently(lambda: bot.send_message(chat, text))

    async with bot:
        await perform(load, stream, reply)


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    asyncio.run(main(sys.argv[1], sys.argv[2], StreamLoad.from_json(sys.argv[3]), sys.argv[4]))
