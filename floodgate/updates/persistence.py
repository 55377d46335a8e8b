"""A persistence that all handler workers share, so that data and conversations follow their chat to another worker.

    Application.builder().token(…).persistence(SharedPersistence()).build()

The data is in the state store (``FLOODGATE_STATE_URL``). Chat and user data are read before each update that uses
them, one row each, and written before the update is acknowledged. A handler worker reads a conversation with the first
update that may belong to it, and again after another worker has had its partition. Nothing is loaded for inactive
chats. Under ``run_polling`` all conversations are read at the start, because the library asks for them.

The data of buttons (``arbitrary_callback_data``) is written and read by handler workers
(:mod:`floodgate.actors.updates.callback_data`), not under ``run_polling``.

Values are stored as JSON: text, numbers, lists, and dicts with text keys. Other values are refused, because they would
come back from JSON changed.

Chat data, and the user data and conversations of private chats, need no locks, because their updates are handled one
after the other. The data of a user who writes in two chats at once, and the bot's own data, may be changed by two
handlers concurrently; the last write wins.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from telegram.ext import BasePersistence, PersistenceInput

from floodgate.actors.updates.conversations import ConversationKey
from floodgate.broker.errors import InvalidParamsError
from floodgate.broker.settings.model import Settings, load_settings
from floodgate.broker.state.sessions import Sessions
from floodgate.broker.state.stores import open_sessions

Data = dict[Any, Any]
_BOT_DATA = "bot_data"
_KEYBOARDS = "callback_data"


class SharedPersistence(BasePersistence[Data, Data, Data]):
    """Persistence for any number of workers. Belongs to the event loop of its Application.

    Args:
        settings: The settings; None reads them from the environment at first use.
        store_data: The kinds of data to store. Callback data is stored by handler workers, whatever this says.
    """

    def __init__(self, settings: Settings | None = None, *, store_data: PersistenceInput | None = None) -> None:
        wanted = store_data or PersistenceInput()
        kept = PersistenceInput(
            bot_data=wanted.bot_data, chat_data=wanted.chat_data, user_data=wanted.user_data, callback_data=False
        )
        super().__init__(store_data=kept)
        self._settings = settings
        self._sessions: Sessions | None = None
        self._bot_data_text: str | None = None  # as this process last read or wrote it
        self.conversations_on_demand = False  # set by a handler worker: floodgate.actors.updates.conversations

    async def get_chat_data(self) -> dict[int, Data]:
        """Return no data at the start: a chat's data is read with its first update."""
        return {}

    async def get_user_data(self) -> dict[int, Data]:
        """Return no data at the start, as for chats."""
        return {}

    async def get_bot_data(self) -> Data:
        """Read the bot's data."""
        self._bot_data_text = await self._read(_BOT_DATA, "")
        return _loaded(self._bot_data_text)

    async def get_callback_data(self) -> None:
        """Return None: a handler worker reads callback data with each update."""

    async def read_keyboards(self, ids: Sequence[str] | None) -> dict[str, str]:
        """Read the callback data of these keyboards, as far as it exists; None reads all."""
        if ids is None:
            return await asyncio.to_thread(self._store().read_all, self._name, _KEYBOARDS)
        return await asyncio.to_thread(self._store().read_some, self._name, _KEYBOARDS, ids)

    async def write_keyboard(self, keyboard_id: str, text: str | None) -> None:
        """Write a keyboard's callback data; None deletes it."""
        await self._write(_KEYBOARDS, keyboard_id, text)

    async def get_conversations(self, name: str) -> dict[ConversationKey, object]:
        """Read all conversations of a handler; none if they are read on demand."""
        if self.conversations_on_demand:
            return {}
        return _states(await asyncio.to_thread(self._store().read_all, self._name, _conversations(name)))

    async def read_conversations(self, name: str, keys: Sequence[ConversationKey]) -> dict[ConversationKey, object]:
        """Read the conversations with these keys, as far as they exist."""
        wanted = [json.dumps(key) for key in keys]
        return _states(await asyncio.to_thread(self._store().read_some, self._name, _conversations(name), wanted))

    async def update_conversation(self, name: str, key: ConversationKey, new_state: object | None) -> None:
        """Write a conversation's state; None deletes it."""
        text = None if new_state is None else _text(f"the state of conversation {name!r}", new_state)
        await self._write(_conversations(name), json.dumps(key), text)

    async def update_chat_data(self, chat_id: int, data: Data) -> None:
        """Write a chat's data."""
        await self._write("chat_data", str(chat_id), _text(f"chat_data of chat {chat_id}", data))

    async def update_user_data(self, user_id: int, data: Data) -> None:
        """Write a user's data."""
        await self._write("user_data", str(user_id), _text(f"user_data of user {user_id}", data))

    async def update_bot_data(self, data: Data) -> None:
        """Write the bot's data if this process changed it; the library calls this with every update."""
        text = _text(_BOT_DATA, data)
        if text != (self._bot_data_text or "{}"):
            self._bot_data_text = text
            await self._write(_BOT_DATA, "", text)

    async def update_callback_data(self, data: Any) -> None:
        """Do nothing: a handler worker writes each keyboard before it is sent."""

    async def drop_chat_data(self, chat_id: int) -> None:
        """Delete a chat's data."""
        await self._write("chat_data", str(chat_id), None)

    async def drop_user_data(self, user_id: int) -> None:
        """Delete a user's data."""
        await self._write("user_data", str(user_id), None)

    async def refresh_chat_data(self, chat_id: int, chat_data: Data) -> None:
        """Replace a chat's data by the stored data, in place."""
        _replace(chat_data, await self._read("chat_data", str(chat_id)))

    async def refresh_user_data(self, user_id: int, user_data: Data) -> None:
        """Replace a user's data by the stored data, in place."""
        _replace(user_data, await self._read("user_data", str(user_id)))

    async def refresh_bot_data(self, bot_data: Data) -> None:
        """Replace the bot's data by the stored data, in place, if another process has changed it."""
        text = await self._read(_BOT_DATA, "")
        if text != self._bot_data_text:
            self._bot_data_text = text
            _replace(bot_data, text)

    async def flush(self) -> None:
        """Close the store; everything has been written already."""
        if self._sessions is not None:
            await asyncio.to_thread(self._sessions.close)

    @property
    def _name(self) -> str:
        """The bot's id, which stays the same when the token is renewed."""
        return str(self.bot.token.partition(":")[0])

    def _store(self) -> Sessions:
        if self._sessions is None:
            self._sessions = open_sessions(self._settings or load_settings())
        return self._sessions

    async def _read(self, kind: str, key: str) -> str | None:
        return await asyncio.to_thread(self._store().read, self._name, kind, key)

    async def _write(self, kind: str, key: str, text: str | None) -> None:
        await asyncio.to_thread(self._store().write, self._name, kind, key, text)


def _conversations(name: str) -> str:
    return f"conversations:{name}"


def _states(stored: dict[str, str]) -> dict[ConversationKey, object]:
    return {tuple(json.loads(key)): json.loads(state) for key, state in stored.items()}


def _text(what: str, data: object) -> str:
    try:
        text = json.dumps(data)
    except (TypeError, ValueError) as error:
        raise InvalidParamsError(
            f"{what} cannot be stored as JSON: {error}. Use only text, numbers, lists and dicts."
        ) from None
    if json.loads(text) != data:
        raise InvalidParamsError(
            f"{what} would come back from JSON changed: use lists instead of tuples, and text as the keys of dicts."
        )
    return text


def _loaded(text: str | None) -> Data:
    return json.loads(text) if text else {}


def _replace(data: Data, text: str | None) -> None:
    stored = _loaded(text)
    if stored != data:
        data.clear()
        data.update(stored)
