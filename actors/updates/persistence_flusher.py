"""An Application's persistence, written before the ack: what a handler changed is safe once its update is gone.

python-telegram-bot itself writes once a minute, and the updates of that minute would be lost to the data with the
process. Writing costs what the persistence makes of it, so runs that end while a write is under way share the next one.
"""

from __future__ import annotations

import asyncio
from typing import Any

from telegram.ext import Application


class PersistenceFlusher:
    """Belongs to the event loop. ``flush`` may be called by any number of tasks."""

    def __init__(self, application: Application[Any, Any, Any, Any, Any, Any]) -> None:
        self._application = application
        self._next: asyncio.Task[None] | None = None  # begins when the one under way has ended
        self._writing: asyncio.Task[None] | None = None

    async def flush(self) -> None:
        """Write what has changed; returns when all that was changed before this call is written."""
        if self._application.persistence is None:
            return
        if self._next is None:
            self._next = asyncio.create_task(self._write(self._writing), name="floodgate-persistence")
        await asyncio.shield(self._next)

    async def _write(self, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait([before])
        self._writing, self._next = self._next, None
        await self._application.update_persistence()
