"""aiogram: one message to each of n chats, all at once. Arguments: URL, token, n."""

import asyncio
import json
import sys

from aiogram import Bot
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import TelegramAPIServer


async def main(url: str, token: str, count: int) -> list[str]:
    session = AiohttpSession(api=TelegramAPIServer.from_base(url), limit=count, timeout=120)
    async with Bot(token, session=session) as bot:
        calls = (bot.send_message(1000 + n, f"burst {n}") for n in range(count))
        answers = await asyncio.gather(*calls, return_exceptions=True)
    return [type(one).__name__ for one in answers if isinstance(one, BaseException)]


print(json.dumps(asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))))
