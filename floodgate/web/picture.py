"""The live picture of the overview and the pages of bots: read once for all viewers, and only while some look."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import Final

from starlette.requests import HTTPConnection

from floodgate.broker.errors import FloodgateError
from floodgate.broker.settings.model import Settings
from floodgate.overview.picture import BotOverview, Overview
from floodgate.overview.reader import OverviewReader
from floodgate.web.blocking_calls import BlockingCalls

FRESH_SECONDS: Final = 1.0
# How long a page waits for RabbitMQ, the store and the campaigns' database.
PATIENCE: Final = timedelta(seconds=1)


class LivePicture:
    """See the module. Belongs to the event loop."""

    def __init__(self, settings: Settings) -> None:
        self._reader = OverviewReader(settings, "web overview", patience=PATIENCE)
        self._thread = BlockingCalls("the overview", FloodgateError, threads=1)
        self._known: Overview | None = None
        self._read_at = float("-inf")  # monotonic
        self._lock = asyncio.Lock()

    async def look(self) -> Overview:
        """Return the picture, at most :data:`FRESH_SECONDS` old. A part that cannot be read says so in it."""
        async with self._lock:
            if self._known is None or time.monotonic() - self._read_at > FRESH_SECONDS:
                self._known = await self._thread.call(self._reader.read)
                self._read_at = time.monotonic()
            return self._known

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
