"""Writes an Application's persistence before the ack, so that a handler's changes are saved before its update is gone.

python-telegram-bot itself writes once a minute, so a crash would lose the changes of up to a minute. A write may be
expensive, so handler runs that end during a write share the next one.
"""

from __future__ import annotations

import asyncio
from typing import Any

from telegram.ext import Application


class PersistenceFlusher:
    """Writes one Application's persistence. Belongs to the event loop; any number of tasks may call ``flush``."""

    def __init__(self, application: Application[Any, Any, Any, Any, Any, Any]) -> None:
        self._application = application
        self._next: asyncio.Task[None] | None = None  # starts when the current write has finished
        self._writing: asyncio.Task[None] | None = None

    async def flush(self) -> None:
        """Write the changes. Returns when all changes made before this call have been written."""
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
