"""An echo bot with aiogram. The `session` makes it flood-safe."""

import asyncio
import os

from aiogram import Bot, Dispatcher
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import TelegramAPIServer
from aiogram.types import Message

GATEWAY = os.environ.get("GATEWAY_URL", "http://127.0.0.1:8080")
dispatcher = Dispatcher()


@dispatcher.message()
async def echo(message: Message) -> None:
    await message.answer(f"You said: {message.text}")


async def main() -> None:
    session = AiohttpSession(api=TelegramAPIServer.from_base(GATEWAY), timeout=70)
    async with Bot(os.environ["BOT_TOKEN"], session=session) as bot:
        await dispatcher.start_polling(bot, polling_timeout=5)


if __name__ == "__main__":
    asyncio.run(main())
