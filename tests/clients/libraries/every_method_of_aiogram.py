"""Calls every method that aiogram has, one after another. Arguments: the gateway's URL, Telegram's URL, token, chat.

Prints the outcome of each, the type of the result or the sentence of the refusal, in three rounds: through the gateway,
at Telegram directly, and through the gateway without waiting.
"""

import asyncio
import datetime
import inspect
import json
import sys
import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from aiogram import Bot, methods
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import TelegramAPIServer
from aiogram.exceptions import TelegramAPIError
from aiogram.methods.base import TelegramMethod
from aiogram.types import BufferedInputFile, InputFile
from pydantic import BaseModel

# Fields that are optional for a method that needs one of them or another.
NEEDED = ("chat_id", "message_id", "user_id")
NAMED = {
    "message_id": 1,
    "user_id": 4242,
    "from_chat_id": 4243,
    "url": "https://example.org/hook",
    "name": "cats_by_bot",
}
PICTURE = b"\x89PNG" + bytes(range(256))


def a_value(kind: Any, chat: int, name: str = "") -> Any:
    """Make some value of a type."""
    if name.endswith("chat_id"):
        return chat
    if name in NAMED:
        return NAMED[name]
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if get_origin(kind) in (Union, types.UnionType):
        kinds = [one for one in get_args(kind) if one is not type(None)]
        return a_value(InputFile if InputFile in kinds else kinds[0], chat)
    if get_origin(kind) is list:
        return [a_value(get_args(kind)[0], chat) for _ in range(2)]
    if get_origin(kind) is Literal:
        return get_args(kind)[0]
    if kind is InputFile:
        return BufferedInputFile(PICTURE, "p.png")
    if inspect.isclass(kind) and issubclass(kind, BaseModel):
        return an_object(kind, chat)
    return {int: 1, float: 1.5, bool: True, datetime.datetime: 1}.get(kind, "1")


def an_object(kind: Any, chat: int, **more: Any) -> Any:
    """Make an object with its required fields."""
    fields = {name: field for name, field in kind.model_fields.items() if field.is_required() or name in NEEDED}
    return kind(**{name: a_value(field.annotation, chat, name) for name, field in fields.items()}, **more)


async def outcome(bot: Bot, kind: type[TelegramMethod[Any]], chat: int, options: dict[str, Any]) -> str:
    """Call a method. Whatever the library raises on its own account ends the program."""
    try:
        result = await bot(an_object(kind, chat, **options))
    except TelegramAPIError as error:
        return error.message
    return type(result).__name__


async def outcomes(url: str, token: str, chat: int, **options: Any) -> dict[str, str]:
    """Call every method, each in a chat of its own."""
    kinds = [kind for _, kind in sorted(vars(methods).items()) if inspect.isclass(kind)]
    calls = [kind for kind in kinds if issubclass(kind, TelegramMethod) and kind is not TelegramMethod]
    session = AiohttpSession(api=TelegramAPIServer.from_base(url))
    async with Bot(token, session=session) as bot:
        return {
            kind.__api_method__: await outcome(bot, kind, chat + number, options) for number, kind in enumerate(calls)
        }


async def main(gateway: str, telegram: str, token: str, chat: int) -> list[dict[str, str]]:
    through, direct = await asyncio.gather(outcomes(gateway, token, chat), outcomes(telegram, token, chat))
    return [through, direct, await outcomes(gateway, token, chat + 1000, floodgate_wait_seconds=0)]


print(json.dumps(asyncio.run(main(*sys.argv[1:4], int(sys.argv[4])))))
