"""Long polling: calls getUpdates in a loop, from one receiver at a time.

The offset tells Telegram to drop the updates before it. It advances only after RabbitMQ has confirmed those updates. So
whatever crashes, Telegram still has every update that RabbitMQ does not, and delivers it again under the same id.

Shutdown. A waiting poll is cut off, which tells Telegram that nobody listens any more. Updates that are being published
are finished first, within bounds. Then all that RabbitMQ has is acknowledged to Telegram once more, because the poll
that was cut off may not have reached it; so a clean restart repeats nothing. A receiver that is no longer the active
one sends nothing to Telegram.
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

# The time that Telegram may take to notice that a poll was cut off, before the next receiver polls.
HANG_UP_SECONDS: Final = 0.3
# Bound on publishing the last batch and acknowledging it to Telegram, the wait above included.
LAST_BATCH_SECONDS: Final = 5.0


class Poller:
    """Polls for one bot. Belongs to the event loop.

    Args:
        poll_seconds: how long Telegram may hold a poll.
        valid: returns whether this receiver is the active one; called before each poll.
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
        """Poll until cancelled, or until this receiver is no longer the active one."""
        self._offset = None  # another receiver may have advanced it in between
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
            if error.webhook_is_set:  # by another program, since polling began
                await self._delete_webhook()
            raise
        self._batch = asyncio.create_task(self._intake.take(self._bot, given), name=f"batch of {self._bot}")
        try:
            self._move_on(await asyncio.shield(self._batch))
        except RabbitMQError:
            self._batch = None
            raise
        if given and self._offset is None:
            await asyncio.sleep(self._poll_seconds)  # no update had an id, so Telegram would return them again at once

    def _move_on(self, last_id: int | None) -> None:
        self._batch = None
        if last_id is not None:
            self._offset = last_id + 1

    async def _finish(self) -> None:
        """Shut down as the module's docstring describes."""
        batch, self._batch = self._batch, None
        with suppress(TimeoutError, ReceivingError, RabbitMQError):
            async with asyncio.timeout(LAST_BATCH_SECONDS if self._valid() else 0):
                if batch is None:
                    await asyncio.sleep(HANG_UP_SECONDS)
                else:
                    self._move_on(await batch)
                if self._valid() and self._offset is not None:
                    await self._api.get_updates(self._bot, self._offset, 0, limit=1)
