"""An assistant on Floodgate: ``AsyncClient.stream``. Arguments: bot, load, and how: ``drafts`` or ``edits``."""

from __future__ import annotations

import asyncio
import sys

from benchmarks.stage.streams import Answer, StreamLoad, perform
from floodgate.producer.async_client import AsyncClient


async def main(bot: str, load: StreamLoad, how: str) -> None:
    async with AsyncClient(bot=bot) as client:

        async def stream(chat: int, answer: Answer) -> None:
            async with client.stream(chat, drafts=how == "drafts") as message:
                async for token in answer:
                    await message.append(token)

        async def reply(chat: int, text: str) -> None:
            await client.send_message(chat, text)

        await perform(load, stream, reply)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], StreamLoad.from_json(sys.argv[2]), sys.argv[3]))
