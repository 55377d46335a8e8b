"""Handles the updates that answer a campaign, before the user's handler.

A press of an unsubscribe button is recorded in the campaigns' database and answered; the user's handler does not see
it. A database that is unavailable, or takes longer than :data:`DATABASE_SECONDS`, is a failed attempt like any other:
the update is tried again, then dead-lettered, and can be replayed. Other chats do not wait, because the database has a
thread of its own.

Other responses, such as presses and replies, are recorded in the background if ``FLOODGATE_CAMPAIGNS_RESPONSE_HOURS``
says so, and reach the user's handler as well. Without it, other updates cost one comparison, and the database is not
opened.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from floodgate.actors.updates.handler import Handler
from floodgate.actors.updates.run import HandlerRun
from floodgate.broker.amqp.connections import Connections
from floodgate.broker.errors import SettingsError, StateUnavailableError
from floodgate.broker.settings.model import Settings
from floodgate.broker.state.thread import StateThread
from floodgate.producer.async_client import AsyncClient
from floodgate.producer.campaigns.content.recipient_codes import RecipientCode, read_unsubscribe_data
from floodgate.producer.campaigns.responses.responses import chats_of, read_response

if TYPE_CHECKING:
    from floodgate.producer.campaigns.responses.recorder import ResponseRecorder
    from floodgate.producer.campaigns.responses.unsubscribing import Unsubscriptions

DATABASE_SECONDS: Final = 20.0
# Presses that wait for the database. More are refused at once, and tried again.
MOST_WAITING: Final = 1000
_NOT_INSTALLED: Final = (
    "This worker cannot record responses to campaigns: install telegram-floodgate[campaigns] where it runs."
)


class CampaignUpdates:
    """A :class:`~floodgate.actors.updates.handler.Handler` in front of the user's. Unless responses are recorded, it
    opens nothing before the first press of an unsubscribe button."""

    def __init__(self, handler: Handler, settings: Settings, connections: Connections) -> None:
        self._handler = handler
        self._settings = settings
        self._client = AsyncClient(settings, connections=connections)
        self._thread = StateThread()
        self._waiting: set[asyncio.Future[str | None]] = set()
        self._recorder: ResponseRecorder | None = None

    @property
    def name(self) -> str:
        """The name of the user's handler."""
        return self._handler.name

    async def open(self) -> None:
        """Open the user's handler.

        Raises:
            SettingsError: responses are to be recorded, but the extra ``campaigns`` is not installed.
            FloodgateError: the user's handler cannot be opened.
        """
        if self._settings.campaigns_response_hours:
            self._recorder = _recorder(self._settings)
        await self._handler.open()
        if self._recorder is not None:
            self._recorder.start()

    async def close(self) -> None:
        """Close the user's handler, then the database."""
        await self._handler.close()
        await self._client.close()
        if self._recorder is not None:
            self._thread.submit(self._recorder.stop, lambda _: None)
        if "_unsubscriptions" in vars(self):
            self._thread.submit(self._unsubscriptions.close, lambda _: None)
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
            await self._unsubscribe(run, query, code)
            return
        if self._recorder is not None:
            response = read_response(run.update.bot, run.update.body, run.arrived_ms)
            if response is not None:
                self._recorder.note(response)
        await self._handler.handle(run)

    async def moved_here(self, bot: str, partition: int, partitions: int) -> None:
        """Tell the user's handler."""
        await self._handler.moved_here(bot, partition, partitions)

    async def _unsubscribe(self, run: HandlerRun, query: Mapping[str, Any], code: RecipientCode) -> None:
        update = run.update
        text = await self._recorded(update.bot, code, chats_of(query.get("message")), run.arrived_ms)
        shown = {"text": text} if text else {}
        await self._client.call(
            "answerCallbackQuery",
            callback_query_id=str(query.get("id")),
            bot=update.bot,
            dedupe_key=f"{update.message_id}-unsubscribe",
            **shown,
        )

    async def _recorded(self, bot: str, code: RecipientCode, chats: tuple[str, ...], at_ms: int) -> str | None:
        if len(self._waiting) >= MOST_WAITING:
            raise StateUnavailableError(f"{MOST_WAITING} updates are waiting for the campaigns' database: try again.")
        call = asyncio.ensure_future(self._thread.call(self._record, bot, code, chats, at_ms))
        self._waiting.add(call)
        call.add_done_callback(self._waiting.discard)
        done, _ = await asyncio.wait({call}, timeout=DATABASE_SECONDS)
        if not done:
            call.add_done_callback(lambda late: late.cancelled() or late.exception())  # nobody else looks at it
            raise StateUnavailableError(
                f"The campaigns' database did not answer within {DATABASE_SECONDS:g} s: check FLOODGATE_CAMPAIGNS_URL."
            )
        return call.result()

    def _record(self, bot: str, code: RecipientCode, chats: tuple[str, ...], at_ms: int) -> str | None:
        """Record a press. Runs on the thread, which also keeps the imports off the event loop."""
        return self._unsubscriptions.by_button(bot, code, chats, at_ms)

    @cached_property
    def _unsubscriptions(self) -> Unsubscriptions:
        try:
            from floodgate.producer.campaigns.responses.unsubscribing import Unsubscriptions
            from floodgate.producer.campaigns.storage.database import Database
        except ImportError:
            raise SettingsError(_NOT_INSTALLED) from None
        return Unsubscriptions(Database(self._settings))


def _recorder(settings: Settings) -> ResponseRecorder:
    try:
        from floodgate.producer.campaigns.responses.recorder import ResponseRecorder
        from floodgate.producer.campaigns.responses.store import ResponseStore
        from floodgate.producer.campaigns.storage.database import Database
    except ImportError:
        raise SettingsError(_NOT_INSTALLED) from None
    return ResponseRecorder(ResponseStore(Database(settings)), timedelta(hours=settings.campaigns_response_hours))
