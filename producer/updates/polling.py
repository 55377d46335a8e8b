"""Long polling: getUpdates again and again, by one receiver at a time.

The offset, which tells Telegram to forget what is before it, moves on only after RabbitMQ has confirmed the updates.
So whatever dies, Telegram still has what RabbitMQ has not; it gives that again, under the same ids.

Ending. A poll that waits is cut off, by which Telegram sees that nobody listens; its own offset said already what is
safe. Updates that are just being published are seen through first, within bounds, and confirmed to Telegram, so that a
restart in good order repeats nothing. When we are not the active one any more, nothing is said to Telegram at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from floodgate.broker.errors import RabbitMQError
from floodgate.producer.updates.intake import Intake
from floodgate.producer.updates.outage_backoff import OutageBackoff
from floodgate.producer.updates.telegram import ReceivingApi, ReceivingError, ReceivingRefusedError

# How long a poll that we cut off may take to be gone at Telegram's side, before the next receiver polls.
HANG_UP_SECONDS: Final = 0.3
# Bound on seeing the last batch through, and on telling Telegram of it.
LAST_BATCH_SECONDS: Final = 5.0


class Poller:
    """Polls for one bot. Belongs to the event loop.

    Parameters:
        valid: whether this receiver is the active one; asked before each poll.
    """

    def __init__(self, bot: str, api: ReceivingApi, intake: Intake, poll_seconds: int, valid: Callable[[], bool]):
        self._bot = bot
        self._api = api
        self._intake = intake
        self._poll_seconds = poll_seconds
        self._valid = valid
        self._outage_backoff = OutageBackoff(bot)
        self._offset: int | None = None
        self._batch: asyncio.Task[int | None] | None = None

    async def run(self) -> None:
        """Poll until cancelled, or until we are not the active one."""
        self._offset = None  # whoever polled in between has moved on
        try:
            await self._outage_backoff.retry(self._delete_webhook, self._valid)
            while self._valid():
                await self._outage_backoff.retry(self._poll, self._valid)
        finally:
            await self._finish()

    async def _delete_webhook(self) -> None:
        await self._api.delete_webhook(self._bot)

    async def _poll(self) -> None:
        try:
            given = await self._api.get_updates(self._bot, self._offset, self._poll_seconds)
        except ReceivingRefusedError as error:
            if error.webhook_is_set:  # by someone else, since we began
                await self._delete_webhook()
            raise
        self._batch = asyncio.create_task(self._intake.take(self._bot, given), name=f"batch of {self._bot}")
        try:
            self._move_on(await asyncio.shield(self._batch))
        except RabbitMQError:
            self._batch = None
            raise
        if given and self._offset is None:
            await asyncio.sleep(self._poll_seconds)  # nothing in it has an id: Telegram would give it again at once

    def _move_on(self, last_id: int | None) -> None:
        self._batch = None
        if last_id is not None:
            self._offset = last_id + 1

    async def _finish(self) -> None:
        """See the module, "Ending"."""
        batch, self._batch = self._batch, None
        if batch is None:
            if self._valid():
                await asyncio.sleep(HANG_UP_SECONDS)
            return
        with suppress(TimeoutError, ReceivingError, RabbitMQError):
            async with asyncio.timeout(LAST_BATCH_SECONDS if self._valid() else 0):
                self._move_on(await batch)
                if self._valid():
                    await self._api.get_updates(self._bot, self._offset, 0, limit=1)
