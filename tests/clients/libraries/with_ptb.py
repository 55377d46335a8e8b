"""A python-telegram-bot program whose only change is its base URL. Arguments: URL, token, chat. Prints what it saw."""

import asyncio
import json
import sys
from typing import Any

from telegram import Bot, InlineKeyboardButton, InlineKeyboardMarkup, InputMediaPhoto
from telegram.error import BadRequest, Forbidden, RetryAfter, TelegramError
from telegram.request import HTTPXRequest

PICTURE = b"\x89PNG" + bytes(range(256)) * 20


async def main(url: str, token: str, chat: int) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    request = HTTPXRequest(connection_pool_size=256, read_timeout=60, pool_timeout=60)
    async with Bot(token, base_url=f"{url}/bot", base_file_url=f"{url}/file/bot", request=request) as bot:
        seen["me"] = bot.id
        keys = InlineKeyboardMarkup([[InlineKeyboardButton("yes", callback_data="yes")]])
        message = await bot.send_message(chat, "<b>hi</b>", parse_mode="HTML", reply_markup=keys)
        seen["text"] = message.text
        seen["buttons"] = message.reply_markup is not None
        photo = await bot.send_photo(chat + 1, PICTURE, caption="a picture")
        seen["photo"] = [photo.caption, bool(photo.photo[-1].file_id)]
        seen["file"] = len(await (await bot.get_file(photo.photo[-1].file_id)).download_as_bytearray())
        album = await bot.send_media_group(chat + 2, [InputMediaPhoto(PICTURE), InputMediaPhoto(PICTURE + b"2")])
        seen["album"] = [bool(one.photo) for one in album]
        edited = await message.edit_text("edited")
        seen["edited"] = edited.text
        seen["deleted"] = await message.delete()
        seen["action"] = await bot.send_chat_action(chat + 3, "typing")
        for update in await bot.get_updates(timeout=1):
            if update.callback_query:
                seen["answered"] = await update.callback_query.answer("ok")
        seen["errors"] = [
            await told(bot.send_message(chat + 90, "x"), Forbidden),
            await told(bot.send_message(chat + 4, "<b>broken", parse_mode="HTML"), BadRequest),
            await told(bot.send_message(chat + 5, "x" * 5000), BadRequest),
        ]
        crowd = await asyncio.gather(*(bot.send_message(chat + 100 + n, f"crowd {n}") for n in range(CROWD)))
        seen["crowd"] = [message.chat.id == chat + 100 + n for n, message in enumerate(crowd)]
        seen["texts"] = [message.text == f"crowd {n}" for n, message in enumerate(crowd)]
    return seen


async def told(call: Any, kind: type[TelegramError]) -> str:
    try:
        await call
    except RetryAfter as error:
        return f"429 {error}"
    except kind as error:
        return str(error)
    return "nothing"


CROWD = int(sys.argv[4])
print(json.dumps(asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))))
