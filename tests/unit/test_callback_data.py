"""Arbitrary callback data: a press finds its data at any worker, and a handler that runs twice makes the same call."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from telegram import InlineKeyboardButton, InlineKeyboardMarkup
from telegram.error import NetworkError
from telegram.ext import (
    Application,
    CallbackQueryHandler,
    InvalidCallbackData,
    MessageHandler,
    PicklePersistence,
    filters,
)
from telegram.request import BaseRequest, RequestData

from floodgate import AsyncClient, SharedPersistence
from floodgate.actors.updates import callback_data
from floodgate.actors.updates.application import ApplicationHandler
from floodgate.actors.updates.callback_data import share_callback_data
from floodgate.actors.updates.run import HandlerRun, enter
from floodgate.broker.errors import InvalidParamsError, SettingsError, StateUnavailableError
from floodgate.broker.messages.update import Update
from floodgate.broker.settings.model import Settings
from floodgate.updates.replies import BotApiRoots, PipelineRequest

TOKEN = "100200300:" + "A" * 35
ME = {"id": 100200300, "is_bot": True, "first_name": "Bot", "username": "a_bot"}
ADA = {"id": 7, "is_bot": False, "first_name": "Ada"}
CHAT = {"id": 7, "type": "private"}


class SavingRequest(BaseRequest):
    """Telegram that takes everything. It notes the keyboards that it was sent, after ``before_call``, as replies do."""

    def __init__(self, before_call: Callable[[], Awaitable[None]]) -> None:
        self.before_call = before_call
        self.keyboards: list[Any] = []

    async def initialize(self) -> None: ...

    async def shutdown(self) -> None: ...

    @property
    def read_timeout(self) -> float:
        return 1

    async def do_request(self, url: str, method: str, request_data: RequestData | None = None, **_: Any) -> Any:
        await self.before_call()
        result: Any = ME
        if url.endswith("/sendMessage"):
            assert request_data is not None
            self.keyboards.append(keyboard := request_data.parameters["reply_markup"])
            result = {"message_id": 3, "date": 1, "chat": CHAT, "from": ME, "reply_markup": keyboard}
        return 200, json.dumps({"ok": True, "result": result}).encode()


class Worker:
    """A handler worker whose bot sends a keyboard and notes the data of the presses."""

    def __init__(self, tmp_path: Path, *data: object, drops: bool = False, fails: bool = False, most: int = 1024):
        self.data, self.drops, self.fails = data, drops, fails
        self.pressed: list[Any] = []
        persistence = SharedPersistence(Settings(_env_file=None, state_url=f"sqlite:///{tmp_path}/state.db"))
        builder = Application.builder().token(TOKEN).persistence(persistence).arbitrary_callback_data(most)
        self.application = builder.build()
        self.application.add_handler(MessageHandler(filters.ALL, self.offer))
        self.application.add_handler(CallbackQueryHandler(self.press))
        shared = share_callback_data("theirs:application", self.application)
        assert shared is not None
        self.shared = shared
        self.request = SavingRequest(shared.save)
        self.handler = ApplicationHandler("theirs:application", self.application, self.request, (), shared)

    async def offer(self, update: Any, context: Any) -> None:
        if update.message.text == "clear":
            context.bot.callback_data_cache.clear_callback_data()
            return
        row = [InlineKeyboardButton(str(each), callback_data=each) for each in self.data]
        for _ in range(2):
            await update.message.reply_text("choose", reply_markup=InlineKeyboardMarkup([row]))

    async def press(self, update: Any, context: Any) -> None:
        self.pressed.append(update.callback_query.data)
        if self.drops:
            context.drop_callback_data(update.callback_query)
        if self.fails:
            raise KeyError("theirs")

    async def __aenter__(self) -> Worker:
        await self.handler.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.handler.close()

    async def handles(self, update_id: int, **content: Any) -> None:
        run = HandlerRun(Update("default", update_id, {"update_id": update_id, **content}), "updates.default.00", 1)

        async def handle() -> None:
            enter(run)
            await self.handler.handle(run)

        await asyncio.create_task(handle())

    async def hears(self, text: str = "hi", update_id: int = 1) -> list[str]:
        """Somebody writes: the data of the buttons in the keyboards that are sent."""
        before = len(self.request.keyboards)
        await self.handles(update_id, message={"message_id": 1, "date": 1, "chat": CHAT, "from": ADA, "text": text})
        sent = self.request.keyboards[before:]
        return [button["callback_data"] for each in sent for row in each["inline_keyboard"] for button in row]

    async def is_pressed(self, data: str, update_id: int = 2) -> Any:
        """A button is pressed: the data that the handler found."""
        query = {"id": "1", "from": ADA, "chat_instance": "1", "data": data}
        keyboard = {"inline_keyboard": [[{"text": "?", "callback_data": data}]]}
        message = {"message_id": 3, "date": 1, "chat": CHAT, "from": ME, "reply_markup": keyboard}
        await self.handles(update_id, callback_query={**query, "message": message})
        return self.pressed[-1]


def invalid(found: object) -> bool:
    return isinstance(found, InvalidCallbackData)


def test_a_press_finds_its_data_at_another_worker(tmp_path: Path) -> None:
    data = [(1, [2, 3]), {"tuple": ("x", None), "dict": [1.5]}, "text", True]

    async def use() -> None:
        async with Worker(tmp_path, *data) as one, Worker(tmp_path) as other:
            sent = await one.hears()
            assert all(len(each) == 64 for each in sent) and len(set(sent)) == 8
            assert [await other.is_pressed(each) for each in sent] == data + data

    asyncio.run(use())


def test_a_keyboard_is_stored_before_the_call_that_sends_it(tmp_path: Path) -> None:
    async def use() -> None:
        async with Worker(tmp_path, "a") as one, Worker(tmp_path) as other:
            found: list[Any] = []
            send = one.request.do_request

            async def send_and_press(*given: Any, **named: Any) -> Any:
                answer = await send(*given, **named)
                button = one.request.keyboards[-1]["inline_keyboard"][0][0]
                found.append(await other.is_pressed(button["callback_data"]))
                return answer

            one.request.do_request = send_and_press  # type: ignore[method-assign]
            await one.hears()
            assert found == ["a", "a"]

    asyncio.run(use())


def test_a_call_whose_keyboards_cannot_be_stored_is_not_made() -> None:
    async def fail() -> None:
        raise StateUnavailableError("The state store is down.")

    settings = Settings(_env_file=None, bot_token=TOKEN)
    roots = BotApiRoots(SecretStr("http://127.0.0.1:1/bot"), SecretStr("http://127.0.0.1:1/file"))

    async def use() -> None:
        request = PipelineRequest(settings, "default", AsyncClient(settings), roots, fail)
        with pytest.raises(NetworkError, match=r"Nothing was sent\. The state store is down\."):
            await request.post("http://127.0.0.1:1/bot/sendMessage")

    asyncio.run(use())


def test_a_handler_that_runs_again_for_an_update_sends_the_same_keyboards_and_another_update_others(
    tmp_path: Path,
) -> None:
    async def use() -> None:
        async with Worker(tmp_path, "a", "b") as one, Worker(tmp_path, "a", "b") as other:
            first = await one.hears(update_id=1)
            assert await other.hears(update_id=1) == first
            assert set(await other.hears(update_id=2)).isdisjoint(first)

    asyncio.run(use())


def test_a_dropped_keyboard_is_dropped_for_all_workers_once_its_update_is_handled(tmp_path: Path) -> None:
    async def use() -> None:
        async with Worker(tmp_path, "a") as one, Worker(tmp_path, drops=True, fails=True) as other:
            first, second = await one.hears()
            for _ in range(2):
                with pytest.raises(KeyError, match="theirs"):
                    await other.is_pressed(first)
                assert other.pressed[-1] == "a"
            other.fails = False
            assert await other.is_pressed(first) == "a"
            other.drops = False
            assert invalid(await other.is_pressed(first)) and invalid(await one.is_pressed(first))
            assert await one.is_pressed(second) == "a"

    asyncio.run(use())


def test_cleared_data_is_cleared_for_all_workers(tmp_path: Path) -> None:
    async def use() -> None:
        async with Worker(tmp_path, "a") as one, Worker(tmp_path, "a") as other:
            (before, _) = await one.hears()
            await other.hears("clear", update_id=2)
            (after, _) = await one.hears(update_id=3)
            assert invalid(await one.is_pressed(before))
            assert await other.is_pressed(after) == "a"

    asyncio.run(use())


def test_the_store_keeps_as_many_keyboards_as_the_application_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callback_data, "PRUNE_EVERY", 4)

    async def use() -> None:
        async with Worker(tmp_path, "a", most=3) as one, Worker(tmp_path) as other:
            sent = [each for update_id in (1, 2) for each in await one.hears(update_id=update_id)]
            found = [await other.is_pressed(each) for each in sent]
            assert [invalid(each) for each in found] == [True, False, False, False]

    asyncio.run(use())


@pytest.mark.parametrize("data", [{1, 2}, {1: 2}, object(), b"x", (object(),)])
def test_data_that_cannot_be_stored_is_refused_where_it_is_sent(tmp_path: Path, data: object) -> None:
    async def use() -> None:
        async with Worker(tmp_path, data) as one:
            with pytest.raises(InvalidParamsError, match="cannot be stored for all workers: use text"):
                await one.hears()
            assert one.request.keyboards == []

    asyncio.run(use())


@pytest.mark.parametrize("pickles", [True, False])
def test_without_a_shared_persistence_it_is_refused_at_the_start(tmp_path: Path, pickles: bool) -> None:
    builder = Application.builder().token(TOKEN).arbitrary_callback_data(True)
    if pickles:
        builder = builder.persistence(PicklePersistence(tmp_path / "data.pickle"))
    words = r"theirs:application uses arbitrary_callback_data.*persistence\(floodgate\.SharedPersistence\(\)\)"
    with pytest.raises(SettingsError, match=words):
        share_callback_data("theirs:application", builder.build())


def test_an_application_without_arbitrary_callback_data_needs_nothing() -> None:
    assert share_callback_data("theirs:application", Application.builder().token(TOKEN).build()) is None
