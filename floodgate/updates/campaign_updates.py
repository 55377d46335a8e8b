"""Handles the updates that answer a campaign, before the user's handler.

A press of an unsubscribe button is recorded in the campaigns' database and answered; the user's handler does not see
it. For all other updates this costs one comparison. A database that is unavailable, or takes longer than
:data:`DATABASE_SECONDS`, is a failed attempt like any other: the update is tried again, then dead-lettered, and can be
replayed. Other chats do not wait, because the database is used on a thread of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from floodgate.actors.updates.handler import Handler
from floodgate.actors.updates.run import HandlerRun
from floodgate.broker.amqp.connections import Connections
from floodgate.broker.errors import SettingsError, StateUnavailableError
from floodgate.broker.messages.update import Update
from floodgate.broker.settings.model import Settings
from floodgate.broker.state.thread import StateThread
from floodgate.producer.async_client import AsyncClient
from floodgate.producer.campaigns.recipient_codes import RecipientCode, read_unsubscribe_data

if TYPE_CHECKING:
    from floodgate.producer.campaigns.store import CampaignStore

DATABASE_SECONDS: Final = 20.0
# Presses that wait for the database. More are refused at once, and tried again.
MOST_WAITING: Final = 1000


class CampaignUpdates:
    """A :class:`~floodgate.actors.updates.handler.Handler` in front of the user's. Opens nothing before the first press
    of an unsubscribe button."""

    def __init__(self, handler: Handler, settings: Settings, connections: Connections) -> None:
        self._handler = handler
        self._settings = settings
        self._client = AsyncClient(settings, connections=connections)
        self._thread = StateThread()
        self._waiting: set[asyncio.Future[str | None]] = set()

    @property
    def name(self) -> str:
        """The name of the user's handler."""
        return self._handler.name

    async def open(self) -> None:
        """Open the user's handler."""
        await self._handler.open()

    async def close(self) -> None:
        """Close the user's handler, then the database."""
        await self._handler.close()
        await self._client.close()
        if "_store" in vars(self):
            self._thread.submit(lambda: self._store.close(), lambda _: None)
        await self._thread.stop()

    async def handle(self, run: HandlerRun) -> None:
        """Handle a press of an unsubscribe button, and pass all other updates on.

        Raises:
            StateUnavailableError: the campaigns' database is unavailable.
            SettingsError: the extra ``campaigns`` is not installed.
            Exception: any that the user's handler raises.
        """
        query = run.update.body.get("callback_query")
        if isinstance(query, dict) and (code := read_unsubscribe_data(query.get("data"))) is not None:
            await self._unsubscribe(run.update, query, code)
        else:
            await self._handler.handle(run)

    async def moved_here(self, bot: str, partition: int, partitions: int) -> None:
        """Tell the user's handler."""
        await self._handler.moved_here(bot, partition, partitions)

    async def _unsubscribe(self, update: Update, query: Mapping[str, Any], code: RecipientCode) -> None:
        text = await self._recorded(update.bot, code, chats_of(query.get("message")))
        shown = {"text": text} if text else {}
        await self._client.call(
            "answerCallbackQuery",
            callback_query_id=str(query.get("id")),
            bot=update.bot,
            dedupe_key=f"{update.message_id}-unsubscribe",
            **shown,
        )

    async def _recorded(self, bot: str, code: RecipientCode, chats: tuple[str, ...]) -> str | None:
        if len(self._waiting) >= MOST_WAITING:
            raise StateUnavailableError(f"{MOST_WAITING} updates are waiting for the campaigns' database: try again.")
        call = asyncio.ensure_future(self._thread.call(self._record, bot, code, chats))
        self._waiting.add(call)
        call.add_done_callback(self._waiting.discard)
        done, _ = await asyncio.wait({call}, timeout=DATABASE_SECONDS)
        if not done:
            call.add_done_callback(lambda late: late.cancelled() or late.exception())  # nobody else looks at it
            raise StateUnavailableError(
                f"The campaigns' database did not answer within {DATABASE_SECONDS:g} s: check FLOODGATE_CAMPAIGNS_URL."
            )
        return call.result()

    def _record(self, bot: str, code: RecipientCode, chats: tuple[str, ...]) -> str | None:
        """Record a press. Runs on the thread, which also keeps the imports off the event loop."""
        store = self._store
        from floodgate.producer.campaigns.unsubscribing import unsubscribe_by_button

        return unsubscribe_by_button(store, bot, code, chats)

    @cached_property
    def _store(self) -> CampaignStore:
        try:
            from floodgate.producer.campaigns.database import Database
            from floodgate.producer.campaigns.store import CampaignStore
        except ImportError:
            raise SettingsError(
                "An unsubscribe button of a campaign was pressed, which this worker cannot record: install "
                "telegram-floodgate[campaigns] where it runs."
            ) from None
        return CampaignStore(Database(self._settings))


def chats_of(message: object) -> tuple[str, ...]:
    """Return the keys under which a campaign may know the chat of a message: its id, and its @name if it has one."""
    chat = message.get("chat") if isinstance(message, dict) else None
    if not isinstance(chat, dict) or not isinstance(chat.get("id"), int):
        return ()
    name = chat.get("username")
    return (str(chat["id"]), f"@{name.lower()}") if isinstance(name, str) else (str(chat["id"]),)
