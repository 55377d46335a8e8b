"""python-telegram-bot: one message to each of n chats, all at once. Arguments: URL, token, n."""

import asyncio
import json
import sys

from telegram import Bot
from telegram.request import HTTPXRequest


async def main(url: str, token: str, count: int) -> list[str]:
    request = HTTPXRequest(connection_pool_size=count, read_timeout=120, pool_timeout=120, connect_timeout=60)
    async with Bot(token, base_url=f"{url}/bot", request=request) as bot:
        calls = (bot.send_message(1000 + n, f"burst {n}") for n in range(count))
        answers = await asyncio.gather(*calls, return_exceptions=True)
    return [type(one).__name__ for one in answers if isinstance(one, BaseException)]


print(json.dumps(asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))))
