"""The data of buttons under ``arbitrary_callback_data``, shared by all workers.

python-telegram-bot gives a button an id in place of its data, and keeps the data in the memory of the process that sent
the keyboard. A press may arrive at another worker. So keyboards are stored in a persistence that all workers share:
each is written before the call that sends it, and read with every update that shows it. ``drop_callback_data`` takes
effect for all workers when the update has been handled, so that an attempt after a failed one still finds the data.

A keyboard's id is derived from its update, its content, and its ordinal among equal keyboards of the run. So a handler
that is called again for an update makes the same calls, which are the same jobs (:mod:`floodgate.updates.replies`). The
bot's token is the key of the hash, so that nobody else can make an id.

Bound. The persistence holds as many keyboards as ``arbitrary_callback_data`` says (1,024), in all workers together; the
oldest are deleted after every :data:`PRUNE_EVERY` keyboards of a worker.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import math
import time
from collections.abc import Iterator, Sequence
from copy import copy
from datetime import UTC, datetime
from typing import Any, Final, Protocol, runtime_checkable
from uuid import uuid4

from telegram import CallbackQuery, InlineKeyboardButton, InlineKeyboardMarkup, Update
from telegram.ext import Application, CallbackDataCache, ExtBot

from floodgate.actors.updates.run import HandlerRun, current_run
from floodgate.broker.errors import InvalidParamsError, SettingsError

PRUNE_EVERY: Final = 256
# The library's format: the id of the keyboard, then that of the button, each with 32 characters.
_ID_LENGTH: Final = 32
_MOST_KEYBOARDS: Final = 100  # of one update: its own message, the one it replies to, the pinned one


@runtime_checkable
class KeyboardStore(Protocol):
    """A persistence that stores keyboards for all workers."""

    async def read_keyboards(self, ids: Sequence[str] | None) -> dict[str, str]:
        """Read the texts of these keyboards, as far as they exist; None reads all."""
        ...

    async def write_keyboard(self, keyboard_id: str, text: str | None) -> None:
        """Write a keyboard's text; None deletes it."""
        ...


class SharedCallbackData(CallbackDataCache):
    """The cache of one bot's callback data, in front of a store. Belongs to the event loop."""

    def __init__(self, bot: ExtBot[Any], maxsize: int, store: KeyboardStore) -> None:
        super().__init__(bot, maxsize)
        self._store = store
        self._unsaved: dict[str, str] = {}
        self._saving = asyncio.Lock()
        self._saved = 0
        self._clear_before = -math.inf  # Unix seconds

    def process_keyboard(self, reply_markup: InlineKeyboardMarkup) -> InlineKeyboardMarkup:
        """Replace the data of a keyboard's buttons by ids, and keep the data.

        Raises:
            InvalidParamsError: the data cannot be stored.
        """
        rows = reply_markup.inline_keyboard
        data = [button.callback_data for row in rows for button in row if button.callback_data is not None]
        if not data:
            return reply_markup
        content = json.dumps([_packed(each) for each in data])
        keyboard_id = self._new_id(content)
        self._unsaved[keyboard_id] = text = json.dumps({"at": time.time(), "data": content})
        self._load(keyboard_id, text)
        numbers = itertools.count()
        return InlineKeyboardMarkup([[_replaced(button, keyboard_id, numbers) for button in row] for row in rows])

    def drop_data(self, callback_query: CallbackQuery) -> None:
        """Delete the keyboard of a pressed button: here at once, for the other workers when the update is handled."""
        keyboard_id = self._callback_queries.get(callback_query.id)
        super().drop_data(callback_query)
        run = current_run()
        if run is not None and keyboard_id is not None:
            run.dropped_keyboards.append(keyboard_id)

    def clear_callback_data(self, time_cutoff: float | datetime | None = None) -> None:
        """Delete all keyboards, or those that are older."""
        super().clear_callback_data(time_cutoff)
        if isinstance(time_cutoff, datetime):
            time_cutoff = (time_cutoff if time_cutoff.tzinfo else time_cutoff.replace(tzinfo=UTC)).timestamp()
        before = time_cutoff or time.time()
        self._unsaved = {each: text for each, text in self._unsaved.items() if json.loads(text)["at"] >= before}
        self._clear_before = max(self._clear_before, before)

    async def insert(self, update: Update, body: dict[str, Any]) -> None:
        """Insert the data into an update, parsed from ``body``, as it is stored now."""
        ids = sorted(set(_keyboard_ids(body)))[:_MOST_KEYBOARDS]
        if ids:
            stored = await self._store.read_keyboards(ids)
            for each in ids:
                if (text := stored.get(each) or self._unsaved.get(each)) is not None:
                    self._load(each, text)
                else:
                    self._keyboard_data.pop(each, None)  # another worker has dropped it
        self.bot.insert_callback_data(update)

    async def save(self) -> None:
        """Write all keyboards that are not stored yet. Call it before a call to Telegram, which may send one.

        Raises:
            StateUnavailableError: the store cannot answer; they are written later.
        """
        if not self._unsaved and not self._saving.locked() and self._clear_before < 0:
            return
        async with self._saving:
            await self._clear()
            for each, text in list(self._unsaved.items()):
                await self._store.write_keyboard(each, text)
                self._unsaved.pop(each, None)
                self._saved += 1
                if self._saved % PRUNE_EVERY == 0:
                    await self._prune(-math.inf)

    async def finish(self, run: HandlerRun) -> None:
        """Delete the keyboards that the handlers of an update have dropped, once they have succeeded."""
        await self.save()
        for each in run.dropped_keyboards:
            await self._store.write_keyboard(each, None)

    async def _clear(self) -> None:
        before = self._clear_before
        if before > 0:
            await self._prune(before)
            if self._clear_before == before:
                self._clear_before = -math.inf

    async def _prune(self, before: float) -> None:
        """Delete the keyboards from before a time, in Unix seconds, and the oldest ones beyond ``maxsize``."""
        stored = await self._store.read_keyboards(None)
        ages = sorted(((json.loads(text)["at"], each) for each, text in stored.items()), reverse=True)
        for place, (at, each) in enumerate(ages):
            if at < before or place >= self.maxsize:
                await self._store.write_keyboard(each, None)

    def _load(self, keyboard_id: str, text: str) -> None:
        stored = json.loads(text)
        data = [_unpacked(each) for each in json.loads(stored["data"])]
        buttons: dict[str, object] = {_button_id(n): each for n, each in enumerate(data)}
        self.load_persistence_data(([(keyboard_id, stored["at"], buttons)], {}))

    def _new_id(self, content: str) -> str:
        run = current_run()
        if run is None:
            return uuid4().hex
        key = f"keyboard:{hashlib.blake2b(content.encode(), digest_size=16).hexdigest()}"
        run.calls[key] += 1
        whole = f"{run.update.update_id}\x00{run.arrived_ms}\x00{key}\x00{run.calls[key]}".encode()
        return hashlib.blake2b(whole, digest_size=_ID_LENGTH // 2, key=self.bot.token.encode()[:64]).hexdigest()


def share_callback_data(name: str, application: Application[Any, Any, Any, Any, Any, Any]) -> SharedCallbackData | None:
    """Make an Application's callback data shared by all workers; None if it uses none.

    Raises:
        SettingsError: its persistence does not store keyboards.
    """
    bot = application.bot
    cache = bot.callback_data_cache if isinstance(bot, ExtBot) else None
    if cache is None:
        return None
    store = application.persistence
    if not isinstance(store, KeyboardStore):
        raise SettingsError(
            f"{name} uses arbitrary_callback_data, which stays in the memory of one worker: build it with "
            ".persistence(floodgate.SharedPersistence()), which all workers share, or without arbitrary_callback_data."
        )
    bot._callback_data_cache = shared = SharedCallbackData(bot, cache.maxsize, store)
    return shared


def _replaced(button: InlineKeyboardButton, keyboard_id: str, numbers: Iterator[int]) -> InlineKeyboardButton:
    if button.callback_data is None:
        return button
    replaced = copy(button)  # the user may use the button again
    replaced.update_callback_data(keyboard_id + _button_id(next(numbers)))
    return replaced


def _button_id(number: int) -> str:
    return f"{number:0{_ID_LENGTH}x}"


def _keyboard_ids(body: dict[str, Any]) -> Iterator[str]:
    """Return the ids of the keyboards that an update shows: wherever a button's data is, in any of its messages."""
    left: list[Any] = [body]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            for name in ("callback_data", "data"):
                if isinstance(data := value.get(name), str) and len(data) == 2 * _ID_LENGTH:
                    yield data[:_ID_LENGTH]
            left += value.values()
        elif isinstance(value, list):
            left += value


def _packed(value: object) -> object:
    """Turn data into JSON values that tell tuples from lists. Inverse of :func:`_unpacked`.

    Raises:
        InvalidParamsError: it has a value of another type.
    """
    if isinstance(value, tuple):
        return {"tuple": [_packed(each) for each in value]}
    if isinstance(value, list):
        return [_packed(each) for each in value]
    if isinstance(value, dict) and all(type(name) is str for name in value):
        return {"dict": {name: _packed(each) for name, each in value.items()}}
    if value is None or type(value) in (str, int, float, bool):
        return value
    raise InvalidParamsError(
        f"callback_data of type {type(value).__name__} cannot be stored for all workers: use text, numbers, lists, "
        "tuples, and dicts whose keys are text."
    )


def _unpacked(value: Any) -> Any:
    if isinstance(value, list):
        return [_unpacked(each) for each in value]
    if not isinstance(value, dict):
        return value
    if "tuple" in value:
        return tuple(_unpacked(each) for each in value["tuple"])
    return {name: _unpacked(each) for name, each in value["dict"].items()}
