"""Sweeps the spool regularly: orphans, files of old dead letters, and file_ids unused for a long time.

Every worker and gateway sweeps, since it may be the only one. Concurrent sweeps are harmless.
"""

from __future__ import annotations

import asyncio
import logging
import random
from typing import Final

from floodgate.broker.errors import SettingsError, SpoolError
from floodgate.broker.uploads.spool import Spool

logger = logging.getLogger("floodgate.uploads")

SWEEP_SECONDS: Final = 3600.0


class Sweeper:
    """Sweeps from a task of the event loop on which it is started; file operations run on threads."""

    def __init__(self, spool: Spool, keep_seconds: float) -> None:
        self._spool = spool
        self._keep_seconds = keep_seconds
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start sweeping. Safe to call twice."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="floodgate-spool-sweep")

    async def stop(self) -> None:
        """Stop sweeping. Safe to call twice, and unstarted."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()

    async def _run(self) -> None:
        while True:
            try:
                if swept := await asyncio.to_thread(self._spool.sweep, self._keep_seconds):
                    logger.info("%d old files were swept from the spool", swept)
            except (SettingsError, SpoolError) as error:
                logger.warning("the spool was not swept: %s", error)
            await asyncio.sleep(SWEEP_SECONDS * random.uniform(0.5, 1.5))
