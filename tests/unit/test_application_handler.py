"""An Application as a handler: its errors, and warnings when a chat moves. Telegram is simulated by fixed answers."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import time
import warnings
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from telegram import Update as TelegramUpdate
from telegram.ext import (
    Application,
    ApplicationHandlerStop,
    CallbackQueryHandler,
    ChatMemberHandler,
    ConversationHandler,
    DictPersistence,
    MessageHandler,
    PicklePersistence,
    filters,
)
from telegram.request import BaseRequest

from floodgate import SharedPersistence
from floodgate.actors.updates.application import ApplicationHandler
from floodgate.actors.updates.conversations import keys_of
from floodgate.actors.updates.handler import UnreadableUpdateError
from floodgate.actors.updates.run import HandlerRun, current_run, enter
from floodgate.broker.errors import HandlersStoppedError
from floodgate.broker.messages.partitions import partition_of
from floodgate.broker.messages.update import Update
from floodgate.broker.settings.model import Settings

ME = {"id": 100200300, "is_bot": True, "first_name": "Bot", "username": "a_bot"}
TOKEN = "100200300:" + "A" * 35
USER = {"id": 7, "is_bot": False, "first_name": "Ada"}
MESSAGE = {"message_id": 3, "date": 1, "chat": {"id": -5, "type": "group", "title": "g"}, "text": "hi"}
Callback = Callable[[Any, Any], Awaitable[None]]


class CannedRequest(BaseRequest):
    """A Telegram that only answers getMe."""

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


def run_of(attempt: int = 1, last: bool = True, **content: Any) -> HandlerRun:
    message = {"message_id": 1, "date": int(time.time()), "chat": {"id": 5, "type": "private"}, "text": "hi"}
    body = {"update_id": 9, **(content or {"message": message})}
    return HandlerRun(Update("default", 9, body), "updates.default.00", 1, attempt, last)


def handle(handler: ApplicationHandler, *runs: HandlerRun) -> list[Exception | None]:
    """The result of each run."""

    async def one(run: HandlerRun) -> Exception | None:
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


def test_error_handlers_are_called_once_when_an_update_has_finally_failed() -> None:
    heard: list[BaseException] = []

    async def listen(_update: Any, context: Any) -> None:
        heard.append(context.error)

    first, second = handle(handler_of(fail, errors=[listen]), run_of(1, last=False), run_of(2, last=True))
    assert isinstance(first, KeyError) and isinstance(second, KeyError)
    assert heard == [second]


def test_an_error_handler_that_stops_propagation_has_handled_the_error() -> None:
    async def deal(_update: Any, _context: Any) -> None:
        raise ApplicationHandlerStop

    assert handle(handler_of(fail, errors=[deal]), run_of()) == [None]


def test_only_the_last_failed_attempt_calls_handlers_of_later_groups() -> None:
    calls: list[int] = []

    async def later(_update: Any, _context: Any) -> None:
        run = current_run()
        assert run is not None
        calls.append(run.attempt)

    handle(handler_of(fail, later), run_of(1, last=False), run_of(2, last=True))
    assert calls == [2]


def test_an_update_that_cannot_be_parsed_into_an_object_is_unreadable() -> None:
    (error,) = handle(handler_of(), run_of(message={"message_id": "x"}))
    assert isinstance(error, UnreadableUpdateError)


def test_a_warning_is_logged_if_a_moved_chats_data_stays_behind(
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
        assert "for the chats of updates.default.03 stayed in another worker's memory" in caplog.text


class Talk:
    """A handler worker whose bot has a conversation that counts messages: each records the state it found."""

    def __init__(self, persistence: Any) -> None:
        async def begin(_update: Any, _context: Any) -> int:
            self.found.append(0)
            return 1

        def go_on_from(state: int) -> Callback:
            async def go_on(_update: Any, _context: Any) -> int:
                self.found.append(state)
                return state + 1

            return go_on

        self.found: list[int] = []
        self.application = Application.builder().token(TOKEN).persistence(persistence).build()
        states = {state: [MessageHandler(filters.ALL, go_on_from(state))] for state in range(1, 6)}
        entry = [MessageHandler(filters.ALL, begin)]
        self.application.add_handler(ConversationHandler(entry, states, [], name="talk", persistent=True))  # type: ignore[arg-type]
        self.handler = ApplicationHandler("theirs:application", self.application, CannedRequest())

    async def __aenter__(self) -> Talk:
        await self.handler.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.handler.close()

    async def hear(self, chat: int) -> int:
        """The state found by a chat's message."""
        someone = {"id": chat, "is_bot": False, "first_name": "Ada"}
        message = {"message_id": 1, "date": 1, "chat": {"id": chat, "type": "private"}, "from": someone, "text": "hi"}
        run = run_of(message=message)
        enter(run)
        await self.handler.handle(run)
        return self.found[-1]

    @property
    def in_memory(self) -> dict[Any, Any]:
        return dict(self.application._conversation_handler_conversations["talk"])


def shared(tmp_path: Path) -> SharedPersistence:
    return SharedPersistence(Settings(_env_file=None, state_url=f"sqlite:///{tmp_path}/state.db"))


def test_a_worker_loads_only_the_conversations_of_active_chats(tmp_path: Path) -> None:
    async def both() -> None:
        async with Talk(shared(tmp_path)) as one, Talk(shared(tmp_path)) as other:
            for chat in range(1, 9):
                await one.hear(chat)
            assert await other.hear(3) == 1
            assert other.in_memory == {(3, 3): 2}
        async with Talk(shared(tmp_path)) as restarted:
            assert restarted.in_memory == {}
            await restarted.handler.moved_here("default", partition_of("5", 4), 4)
            assert restarted.in_memory == {}
            assert [await restarted.hear(3), await restarted.hear(5)] == [2, 1]

    asyncio.run(both())


def test_a_conversation_continued_by_another_worker_resumes_there_when_it_moves_back(tmp_path: Path) -> None:
    async def both() -> None:
        async with Talk(shared(tmp_path)) as one, Talk(shared(tmp_path)) as other:
            found = [await worker.hear(5) for worker in (one, one, other, other)]
            assert found == [0, 1, 2, 3]
            assert await one.hear(6) == 0
            await one.handler.moved_here("default", partition_of("5", 1024), 1024)
            assert one.in_memory == {(6, 6): 1}
            assert await one.hear(5) == 4

    asyncio.run(both())


class OwnPersistence(DictPersistence):
    """A user's own persistence, which returns all conversations or none."""


def test_with_another_persistence_only_the_partitions_conversations_are_reloaded() -> None:
    async def both() -> None:
        stored = OwnPersistence()
        async with Talk(stored) as one:
            assert [await one.hear(5), await one.hear(6)] == [0, 0]
            await stored.update_conversation("talk", (5, 5), 3)
            await stored.update_conversation("talk", (6, 6), 3)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("floodgate.actors.updates.application._OF_ONE_PROCESS", ())
                await one.handler.moved_here("default", partition_of("5", 1024), 1024)
            assert [await one.hear(5), await one.hear(6)] == [3, 1]

    asyncio.run(both())


@pytest.mark.parametrize(
    ("content", "keys"),
    [
        ({}, []),
        ({"inline_query": {"id": "1", "from": USER, "query": "", "offset": ""}}, [(7,)]),
        ({"message": {**MESSAGE, "from": USER}}, [(-5,), (7,), (-5, 7)]),
        (
            {"callback_query": {"id": "1", "from": USER, "chat_instance": "1", "message": MESSAGE}},
            [(-5,), (7,), (-5, 7), (3,), (-5, 3), (7, 3), (-5, 7, 3)],
        ),
        (
            {"callback_query": {"id": "1", "from": USER, "chat_instance": "1", "inline_message_id": "i"}},
            [(7,), ("i",), (7, "i")],
        ),
    ],
)
def test_an_update_may_belong_to_conversations_of_its_chat_user_and_message(
    content: dict[str, Any], keys: list[Any]
) -> None:
    update = TelegramUpdate.de_json({"update_id": 9, **content}, None)
    assert keys_of(update) == keys


@pytest.mark.parametrize(("per_chat", "per_user", "per_message"), list(itertools.product((True, False), repeat=3))[:-1])
def test_the_conversation_keys_include_the_librarys_own(per_chat: bool, per_user: bool, per_message: bool) -> None:
    content = {"callback_query": {"id": "1", "from": USER, "chat_instance": "1", "message": MESSAGE}}
    update = TelegramUpdate.de_json({"update_id": 9, **content}, None)
    entry = CallbackQueryHandler(fail)
    with warnings.catch_warnings(action="ignore"):
        theirs = ConversationHandler([entry], {}, [], per_chat=per_chat, per_user=per_user, per_message=per_message)
    assert theirs._get_key(update) in keys_of(update)


@pytest.mark.parametrize(("allowed", "warned"), [([], True), (["message"], True), (["chat_member"], False)])
def test_a_handler_whose_updates_the_receiver_does_not_ask_for_is_warned_about(
    caplog: pytest.LogCaptureFixture, allowed: list[str], warned: bool
) -> None:
    application = Application.builder().token(TOKEN).build()

    async def add_handlers(_application: Any) -> None:
        application.add_handler(ChatMemberHandler(fail, ChatMemberHandler.CHAT_MEMBER))

    application.post_init = add_handlers
    with caplog.at_level(logging.WARNING, "floodgate.updates"):
        handle(ApplicationHandler("theirs:application", application, CannedRequest(), allowed))
    words = "theirs:application handles chat_member, which the receiver does not ask Telegram for"
    assert (words in caplog.text) is warned


def test_an_application_that_stops_in_its_post_init_is_not_started() -> None:
    async def stop(application: Any) -> None:
        application.stop_running()

    handler = handler_of()
    handler._application.post_init = stop

    async def use() -> None:
        with pytest.raises(HandlersStoppedError, match="theirs:application stopped this worker: it called stop_run"):
            await handler.open()
        assert not handler._application.running
        await handler.close()

    asyncio.run(use())


def test_an_unopened_handler_can_be_closed() -> None:
    asyncio.run(handler_of().close())
