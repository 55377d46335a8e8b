"""The live picture of the overview and the pages of bots: read once for all viewers, and only while some look."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from functools import partial
from typing import Final

from starlette.requests import HTTPConnection

from floodgate.broker.errors import FloodgateError
from floodgate.broker.settings.model import Settings
from floodgate.overview.picture import BotOverview, Overview
from floodgate.overview.reader import OverviewReader
from floodgate.web.service_threads import ServiceThreads

FRESH_SECONDS: Final = 1.0
# A page waits for this long for a newer picture; for one older than STALE_SECONDS, for as long as reading takes.
PAGE_SECONDS: Final = 0.2
STALE_SECONDS: Final = 10.0
# How long reading waits for RabbitMQ, the store and the campaigns' database.
PATIENCE: Final = timedelta(seconds=1)


class LivePicture:
    """See the module. Belongs to the event loop."""

    def __init__(self, settings: Settings) -> None:
        self._reader = OverviewReader(settings, "web overview", patience=PATIENCE)
        self._thread = ServiceThreads("the overview", FloodgateError, threads=1)
        self._known: Overview | None = None
        self._read_at = float("-inf")  # monotonic
        self._reading: asyncio.Task[Overview] | None = None
        self._expired = False

    async def look(self) -> Overview:
        """Return the picture, which is read again if it is older than :data:`FRESH_SECONDS`. A part that cannot be read
        says so in it."""
        age = time.monotonic() - self._read_at
        if (age > FRESH_SECONDS or self._expired) and self._reading is None:
            self._reading = asyncio.create_task(self._read(), name="the live picture")
        if self._reading is not None:
            await asyncio.wait({self._reading}, timeout=PAGE_SECONDS if age < STALE_SECONDS else None)
        assert self._known is not None, "the first reading is waited for"
        return self._known

    async def _read(self) -> Overview:
        try:
            fresh, self._expired = self._expired, False
            self._known = await self._thread.call(partial(self._reader.read, fresh=fresh))
            self._read_at = time.monotonic()
            return self._known
        finally:
            self._reading = None

    def expire(self) -> None:
        """Have everything read again at the next look: an action has changed it."""
        self._expired = True

    async def of_bot(self, bot: str) -> BotOverview:
        """Return one of the configured bots."""
        return next(each for each in (await self.look()).bots if each.name == bot)

    async def close(self) -> None:
        """Close its connections. Safe to call twice, and before the first look."""
        await asyncio.to_thread(self._reader.close)
        await self._thread.stop()


def picture_of(connection: HTTPConnection) -> LivePicture:
    """Return the live picture of the application that answers a request."""
    picture: LivePicture = connection.app.state.picture
    return picture
