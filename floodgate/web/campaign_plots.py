"""The plots of campaigns, each counted once for all viewers, since counting reads the whole audience.

Bounds: a plot is counted again after :data:`FRESH_SECONDS`, when somebody looks; :data:`MOST_KEPT` plots are kept.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from floodgate.broker.errors import FloodgateError

if TYPE_CHECKING:
    from floodgate.producer.campaigns.sending.pace import CampaignPace

FRESH_SECONDS: Final = 15.0
PAGE_SECONDS: Final = 0.1
MOST_KEPT: Final = 100


class CampaignPlots:
    """See the module. Belongs to the event loop.

    Args:
        read: counts a campaign's pace.
    """

    def __init__(self, read: Callable[[str], Awaitable[CampaignPace]]) -> None:
        self._read = read
        self._known: dict[str, tuple[float, CampaignPace]] = {}  # when it was read, monotonic
        self._reading: dict[str, asyncio.Task[None]] = {}

    async def look(self, name: str) -> CampaignPace | None:
        """Return a campaign's pace, which may be some seconds old; None if it is still being counted."""
        read_at, known = self._known.get(name, (float("-inf"), None))
        if time.monotonic() - read_at > FRESH_SECONDS and name not in self._reading and len(self._reading) < MOST_KEPT:
            self._reading[name] = asyncio.create_task(self._count(name), name=f"plot of {name}")
        if (task := self._reading.get(name)) is not None:
            await asyncio.wait({task}, timeout=PAGE_SECONDS)
            _, known = self._known.get(name, (0.0, known))
        return known

    async def _count(self, name: str) -> None:
        try:
            self._known[name] = time.monotonic(), await self._read(name)
        except FloodgateError:
            self._known.pop(name, None)  # the rest of the page says why
        finally:
            del self._reading[name]
        while len(self._known) > MOST_KEPT:
            del self._known[next(iter(self._known))]
