"""An Application as a handler: whose errors are whose, and what is said when a chat moves. Telegram is a canned one."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from telegram.ext import Application, ApplicationHandlerStop, MessageHandler, PicklePersistence, filters
from telegram.request import BaseRequest

from actors.updates.application import ApplicationHandler
from actors.updates.handler import UnreadableUpdateError
from actors.updates.run import Run, current_run, enter
from broker.update import Update

ME = {"id": 100200300, "is_bot": True, "first_name": "Bot", "username": "a_bot"}
TOKEN = "100200300:" + "A" * 35
Callback = Callable[[Any, Any], Awaitable[None]]


class CannedRequest(BaseRequest):
    """Telegram that knows who the bot is, and nothing else."""

    async def initialize(self) -> None: ...

    async def shutdown(self) -> None: ...

    @property
    def read_timeout(self) -> float:
        return 1

    async def do_request(self, *_: Any, **__: Any) -> tuple[int, bytes]:
        return 200, json.dumps({"ok": True, "result": ME}).encode()


def handler_of(*callbacks: Callback, errors: list[Callback] | None = None, **options: Any) -> ApplicationHandler:
    builder = Application.builder().token(TOKEN)
    if persistence := options.get("persistence"):
        builder = builder.persistence(persistence)
    application = builder.build()
    for group, callback in enumerate(callbacks):
        application.add_handler(MessageHandler(filters.ALL, callback), group)
    for error in errors or []:
        application.add_error_handler(error)
    return ApplicationHandler("theirs:application", application, CannedRequest())


def run_of(attempt: int = 1, last: bool = True, **content: Any) -> Run:
    message = {"message_id": 1, "date": int(time.time()), "chat": {"id": 5, "type": "private"}, "text": "hi"}
    body = {"update_id": 9, **(content or {"message": message})}
    return Run(Update("default", 9, body), "updates.default.00", 1, attempt, last)


def handle(handler: ApplicationHandler, *runs: Run) -> list[Exception | None]:
    """How each run ends."""

    async def one(run: Run) -> Exception | None:
        enter(run)
        try:
            await handler.handle(run)
        except Exception as error:  # noqa: BLE001  # it is what is asked for
            return error
        return None

    async def all_of_them() -> list[Exception | None]:
        await handler.open()
        try:
            return [await asyncio.create_task(one(run)) for run in runs]
        finally:
            await handler.close()

    return asyncio.run(all_of_them())


async def fail(_update: Any, _context: Any) -> None:
    raise KeyError("theirs")


def test_the_users_error_handlers_hear_of_an_update_once_when_it_is_given_up() -> None:
    heard: list[BaseException] = []

    async def listen(_update: Any, context: Any) -> None:
        heard.append(context.error)

    first, second = handle(handler_of(fail, errors=[listen]), run_of(1, last=False), run_of(2, last=True))
    assert isinstance(first, KeyError) and isinstance(second, KeyError)
    assert heard == [second]


def test_an_error_handler_that_stops_the_error_has_dealt_with_it() -> None:
    async def deal(_update: Any, _context: Any) -> None:
        raise ApplicationHandlerStop

    assert handle(handler_of(fail, errors=[deal]), run_of()) == [None]


def test_a_failed_attempt_calls_no_handler_of_later_groups_but_the_last_one_does() -> None:
    calls: list[int] = []

    async def later(_update: Any, _context: Any) -> None:
        run = current_run()
        assert run is not None
        calls.append(run.attempt)

    handle(handler_of(fail, later), run_of(1, last=False), run_of(2, last=True))
    assert calls == [2]


def test_an_update_that_no_object_can_be_made_of_is_unreadable() -> None:
    (error,) = handle(handler_of(), run_of(message={"message_id": "x"}))
    assert isinstance(error, UnreadableUpdateError)


def test_a_chat_that_moves_leaves_a_word_if_its_data_stays_behind(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def move(handler: ApplicationHandler) -> None:
        await handler.open()
        await handler.moved_here("default", 3, 16)
        await handler.close()

    for persistence in (None, PicklePersistence(tmp_path / "data.pickle")):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "floodgate.updates"):
            asyncio.run(move(handler_of(persistence=persistence)))
        assert "of the chats of updates.default.03 stayed with their worker" in caplog.text


def test_an_unopened_handler_can_be_closed() -> None:
    asyncio.run(handler_of().close())
