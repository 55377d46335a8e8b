"""An assistant that shows its answer while it writes it, with aiogram and a gateway.

The `session` makes the bot flood-safe. An answer is posted to the gateway while it grows, in one request.

floodgate worker & floodgate gateway & python assistant_aiogram.py
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator

from aiogram import Bot, Dispatcher, F
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import TelegramAPIServer
from aiogram.filters import CommandStart
from aiogram.types import Message
from aiohttp import ClientSession
from local_model import tokens

GATEWAY = os.environ.get("GATEWAY_URL", "http://127.0.0.1:8080")
dispatcher = Dispatcher()


@dispatcher.message(CommandStart())
async def start(message: Message) -> None:
    await message.answer("Ask me anything.")


@dispatcher.message(F.text)
async def answer(message: Message, gateway: ClientSession) -> None:
    options = {
        "chat_id": message.chat.id,
        "formatting": "markdown",
        "on_error": "\n\n(The answer breaks off here. Please ask again.)",
    }
    if message.chat.type != "private":
        options["reply_parameters"] = json.dumps({"message_id": message.message_id})
    await gateway.post("/floodgate/v1/streams", params=options, data=encoded(tokens(message.text or "")))


async def encoded(pieces: AsyncIterator[str]) -> AsyncIterator[bytes]:
    async for piece in pieces:
        yield piece.encode()


async def main() -> None:
    token = os.environ["BOT_TOKEN"]
    session = AiohttpSession(api=TelegramAPIServer.from_base(GATEWAY), timeout=70)
    async with (
        Bot(token, session=session) as bot,
        ClientSession(GATEWAY, headers={"Authorization": f"Bearer {token}"}, raise_for_status=True) as gateway,
    ):
        await dispatcher.start_polling(bot, polling_timeout=5, gateway=gateway)


if __name__ == "__main__":
    asyncio.run(main())
