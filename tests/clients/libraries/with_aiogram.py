"""An aiogram program whose only change is its API server. Arguments: URL, token, chat. Prints what it saw."""

import asyncio
import json
import sys
from typing import Any

from aiogram import Bot
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import TelegramAPIServer
from aiogram.exceptions import TelegramAPIError, TelegramBadRequest, TelegramForbiddenError
from aiogram.types import BufferedInputFile, InlineKeyboardButton, InlineKeyboardMarkup, InputMediaPhoto

PICTURE = b"\x89PNG" + bytes(range(256)) * 21


async def main(url: str, token: str, chat: int) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    async with Bot(token, session=AiohttpSession(api=TelegramAPIServer.from_base(url), limit=256)) as bot:
        seen["me"] = (await bot.get_me()).id
        keys = InlineKeyboardMarkup(inline_keyboard=[[InlineKeyboardButton(text="yes", callback_data="yes")]])
        message = await bot.send_message(chat, "<b>hi</b>", parse_mode="HTML", reply_markup=keys)
        seen["text"] = message.text
        seen["buttons"] = message.reply_markup is not None
        photo = await bot.send_photo(chat + 1, BufferedInputFile(PICTURE, "p.png"), caption="a picture")
        seen["photo"] = [photo.caption, bool(photo.photo[-1].file_id)]
        seen["file"] = len((await bot.download(photo.photo[-1].file_id)).read())
        files = [BufferedInputFile(PICTURE, "p.png"), BufferedInputFile(PICTURE + b"2", "q.png")]
        album = await bot.send_media_group(chat + 2, [InputMediaPhoto(media=file) for file in files])
        seen["album"] = [bool(one.photo) for one in album]
        edited = await bot.edit_message_text("edited", chat_id=chat, message_id=message.message_id)
        seen["edited"] = edited.text
        seen["deleted"] = await bot.delete_message(chat, message.message_id)
        seen["action"] = await bot.send_chat_action(chat + 3, "typing")
        for update in await bot.get_updates(timeout=1):
            if update.callback_query:
                seen["answered"] = await bot.answer_callback_query(update.callback_query.id, "ok")
        seen["errors"] = [
            await told(bot.send_message(chat + 90, "x"), TelegramForbiddenError),
            await told(bot.send_message(chat + 4, "<b>broken", parse_mode="HTML"), TelegramBadRequest),
            await told(bot.send_message(chat + 5, "x" * 5000), TelegramBadRequest),
        ]
        crowd = await asyncio.gather(*(bot.send_message(chat + 100 + n, f"crowd {n}") for n in range(CROWD)))
        seen["crowd"] = [message.chat.id == chat + 100 + n for n, message in enumerate(crowd)]
        seen["texts"] = [message.text == f"crowd {n}" for n, message in enumerate(crowd)]
    return seen


async def told(call: Any, kind: type[TelegramAPIError]) -> str:
    try:
        await call
    except kind as error:
        return error.message
    return "nothing"


CROWD = int(sys.argv[4])
print(json.dumps(asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))))
