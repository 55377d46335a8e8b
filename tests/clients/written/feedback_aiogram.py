"""A feedback bot: copies what users write to a group, with a button that closes the matter, and answers by replies.
Environment: API_ROOT, BOT_TOKEN, STAFF."""

import asyncio
import os

from aiogram import Bot, Dispatcher, F
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import TelegramAPIServer
from aiogram.types import CallbackQuery, InlineKeyboardButton, InlineKeyboardMarkup, Message

STAFF = int(os.environ["STAFF"])
CLOSE = InlineKeyboardMarkup(inline_keyboard=[[InlineKeyboardButton(text="Done", callback_data="done")]])
dispatcher = Dispatcher()
writers: dict[int, int] = {}


@dispatcher.message(F.chat.id == STAFF, F.reply_to_message)
async def answer(message: Message) -> None:
    await message.copy_to(writers[message.reply_to_message.message_id])


@dispatcher.message(F.chat.type == "private")
async def take(message: Message) -> None:
    copy = await message.copy_to(STAFF, reply_markup=CLOSE)
    writers[copy.message_id] = message.chat.id
    await message.answer("Thank you, it has been passed on.")


@dispatcher.callback_query(F.data == "done")
async def close(query: CallbackQuery) -> None:
    await query.message.edit_reply_markup(reply_markup=None)
    await query.answer("Closed")


async def main() -> None:
    session = AiohttpSession(api=TelegramAPIServer.from_base(os.environ["API_ROOT"]))
    await dispatcher.start_polling(Bot(os.environ["BOT_TOKEN"], session=session))


asyncio.run(main())
