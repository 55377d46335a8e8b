"""A pyTelegramBotAPI program whose only change is its API URL. Arguments: URL, token, chat. Prints what it saw."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from telebot import TeleBot, apihelper
from telebot.apihelper import ApiTelegramException
from telebot.types import InlineKeyboardButton, InlineKeyboardMarkup, InputMediaPhoto

PICTURE = b"\x89PNG" + bytes(range(256)) * 22


def main(url: str, token: str, chat: int) -> dict[str, Any]:
    apihelper.API_URL = url + "/bot{0}/{1}"
    apihelper.FILE_URL = url + "/file/bot{0}/{1}"
    apihelper.READ_TIMEOUT = 60
    bot = TeleBot(token, threaded=False)
    seen: dict[str, Any] = {"me": bot.get_me().id}
    keys = InlineKeyboardMarkup([[InlineKeyboardButton("yes", callback_data="yes")]])
    message = bot.send_message(chat, "<b>hi</b>", parse_mode="HTML", reply_markup=keys)
    seen["text"] = message.text
    seen["buttons"] = message.reply_markup is not None
    photo = bot.send_photo(chat + 1, PICTURE, caption="a picture")
    seen["photo"] = [photo.caption, bool(photo.photo[-1].file_id)]
    seen["file"] = len(bot.download_file(bot.get_file(photo.photo[-1].file_id).file_path))
    album = bot.send_media_group(chat + 2, [InputMediaPhoto(PICTURE), InputMediaPhoto(PICTURE + b"2")])
    seen["album"] = [bool(one.photo) for one in album]
    seen["edited"] = bot.edit_message_text("edited", chat, message.message_id).text
    seen["deleted"] = bot.delete_message(chat, message.message_id)
    seen["action"] = bot.send_chat_action(chat + 3, "typing")
    for update in bot.get_updates(timeout=1):
        if update.callback_query:
            seen["answered"] = bot.answer_callback_query(update.callback_query.id, "ok")
    seen["errors"] = [
        told(lambda: bot.send_message(chat + 90, "x")),
        told(lambda: bot.send_message(chat + 4, "<b>broken", parse_mode="HTML")),
        told(lambda: bot.send_message(chat + 5, "x" * 5000)),
    ]
    with ThreadPoolExecutor(CROWD) as threads:
        crowd = list(threads.map(lambda n: bot.send_message(chat + 100 + n, f"crowd {n}"), range(CROWD)))
    seen["crowd"] = [message.chat.id == chat + 100 + n for n, message in enumerate(crowd)]
    seen["texts"] = [message.text == f"crowd {n}" for n, message in enumerate(crowd)]
    return seen


def told(call: Any) -> str:
    try:
        call()
    except ApiTelegramException as error:
        return str(error.description)
    return "nothing"


CROWD = int(sys.argv[4])
print(json.dumps(main(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
