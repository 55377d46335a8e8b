"""The contract of every store of session data, and the persistence built on it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from telegram import Bot

from floodgate import SharedPersistence
from floodgate.broker.errors import InvalidParamsError, StateUnavailableError
from floodgate.broker.settings.model import Settings
from floodgate.broker.state.redis.sessions import RedisSessions
from floodgate.broker.state.sessions import Sessions
from floodgate.broker.state.sqlite.sessions import SqliteSessions
from tests.contract.conftest import redis_url_of

TOKEN = "100200300:" + "A" * 35
Opener = Callable[[], Sessions]
Maker = Callable[[], SharedPersistence]


@pytest.fixture(params=["sqlite", "redis", "redis cluster"])
def state_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/state.db"
    return redis_url_of(request)


@pytest.fixture
def sessions(state_url: str, tmp_path: Path) -> Iterator[Sessions]:
    store: Sessions = SqliteSessions(tmp_path / "state.db") if "sqlite" in state_url else RedisSessions(state_url)
    yield store
    store.close()
    store.close()


def test_session_texts_are_stored_by_bot_kind_and_key(sessions: Sessions) -> None:
    sessions.write("1", "chat_data", "5", "five")
    sessions.write("1", "chat_data", "5", "fünf")
    sessions.write("1", "user_data", "5", "user")
    sessions.write("2", "chat_data", "5", "other bot")
    assert sessions.read("1", "chat_data", "5") == "fünf"
    assert sessions.read("1", "chat_data", "6") is None
    assert sessions.read_all("1", "chat_data") == {"5": "fünf"}
    assert sessions.read_some("1", "chat_data", ["6", "5", "7"]) == {"5": "fünf"}
    assert sessions.read_some("1", "chat_data", []) == {}
    sessions.write("1", "chat_data", "5", None)
    sessions.write("1", "chat_data", "5", None)
    assert sessions.read_all("1", "chat_data") == {}
    assert sessions.read_all("1", "user_data") == {"5": "user"}


def test_an_unavailable_store_is_reported_in_one_sentence() -> None:
    with pytest.raises(StateUnavailableError, match="does not answer"):
        RedisSessions("redis://127.0.0.1:1/0").read("1", "chat_data", "5")


@pytest.fixture
def make(state_url: str) -> Maker:
    """Each belongs to another worker."""

    def persistence() -> SharedPersistence:
        made = SharedPersistence(Settings(_env_file=None, state_url=state_url))
        made.set_bot(Bot(TOKEN))
        return made

    return persistence


def test_data_written_by_one_worker_is_read_by_another_at_the_chats_next_update(make: Maker) -> None:
    async def both() -> tuple[dict[Any, Any], dict[Any, Any], dict[Any, Any], dict[Any, Any]]:
        one, other = make(), make()
        await one.update_chat_data(5, {"n": [1, {"a": None}]})
        await one.update_user_data(6, {"name": "Ada"})
        await one.get_bot_data()
        await one.update_bot_data({"total": 3})
        chat: dict[Any, Any] = {"stale": True}
        user: dict[Any, Any] = {}
        bot: dict[Any, Any] = {}
        await other.refresh_chat_data(5, chat)
        await other.refresh_user_data(6, user)
        await other.refresh_bot_data(bot)
        await one.drop_chat_data(5)
        gone: dict[Any, Any] = {"n": 1}
        await other.refresh_chat_data(5, gone)
        await one.flush()
        await other.flush()
        return chat, user, bot, gone

    assert asyncio.run(both()) == ({"n": [1, {"a": None}]}, {"name": "Ada"}, {"total": 3}, {})


def test_open_conversations_are_restored_unchanged_and_ended_ones_are_not(make: Maker) -> None:
    async def both() -> dict[Any, Any]:
        one, other = make(), make()
        await one.update_conversation("order", (5, 6), 1)
        await one.update_conversation("order", (5, 7), "asking")
        await one.update_conversation("order", (5, 8), 2)
        await one.update_conversation("order", (5, 8), None)
        await one.update_conversation("other", (5, 6), 0)
        found = await other.get_conversations("order")
        await one.flush()
        await other.flush()
        return found

    assert asyncio.run(both()) == {(5, 6): 1, (5, 7): "asking"}


def test_unchanged_bot_data_is_not_written_back(make: Maker) -> None:
    """The library passes it with every update, and another worker's writes since then would be lost."""

    async def both() -> dict[Any, Any]:
        one, other = make(), make()
        idle = await other.get_bot_data()
        await one.get_bot_data()
        await one.update_bot_data({"total": 3})
        await other.update_bot_data(idle)
        found = await make().get_bot_data()
        await one.flush()
        await other.flush()
        return found

    assert asyncio.run(both()) == {"total": 3}


@pytest.mark.parametrize("data", [{"when": object()}, {5: "number"}, {"pair": (1, 2)}], ids=["object", "key", "tuple"])
def test_data_that_json_would_change_is_refused_by_name(make: Maker, data: dict[Any, Any]) -> None:
    with pytest.raises(InvalidParamsError, match="chat_data of chat 5"):
        asyncio.run(make().update_chat_data(5, data))
