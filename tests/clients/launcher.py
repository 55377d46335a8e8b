"""Runs a program of others as it is, but for its token and the server that it calls.

Arguments: library, URL, token, program, the program's own arguments. Runs in the clients' environment.
"""

from __future__ import annotations

import runpy
import sys
from functools import wraps
from pathlib import Path
from typing import Any


def fix(kind: Any, **fixed: Any) -> None:
    """Make a class ignore its first argument, the token, and some of its options."""
    original = kind.__init__

    @wraps(original)
    def init(self: Any, *arguments: Any, **options: Any) -> None:
        original(self, *arguments[1:], **{**options, **fixed})

    kind.__init__ = init


def point_python_telegram_bot(url: str, token: str) -> None:
    import telegram

    fix(telegram.Bot, token=token, base_url=f"{url}/bot", base_file_url=f"{url}/file/bot")


def point_aiogram(url: str, token: str) -> None:
    from aiogram import Bot
    from aiogram.client.telegram import PRODUCTION, TelegramAPIServer

    for name in ("base", "file"):
        object.__setattr__(PRODUCTION, name, getattr(TelegramAPIServer.from_base(url), name))
    fix(Bot, token=token)


def point_telebot(url: str, token: str) -> None:
    import telebot
    from telebot import apihelper, async_telebot, asyncio_helper

    for helper in (apihelper, asyncio_helper):
        helper.API_URL, helper.FILE_URL = url + "/bot{0}/{1}", url + "/file/bot{0}/{1}"
    fix(telebot.TeleBot, token=token)
    fix(async_telebot.AsyncTeleBot, token=token)


POINT = {"ptb": point_python_telegram_bot, "aiogram": point_aiogram, "telebot": point_telebot}


def main(library: str, url: str, token: str, program: str) -> None:
    POINT[library](url, token)
    sys.argv = sys.argv[4:]
    sys.path.insert(0, str(Path(program).parent))
    runpy.run_path(program, run_name="__main__")


main(*sys.argv[1:5])
