"""Uploads on their way into the spool: kept before their job is accepted, dropped when it is not."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Mapping
from typing import Final

from starlette.datastructures import UploadFile

from broker.errors import SpoolError
from broker.job import Job
from broker.settings import Settings
from broker.spool import Spool, SpooledFile
from producer.gateway.answers import RefusalError

logger = logging.getLogger("floodgate.gateway")

SWEEP_SECONDS: Final = 3600.0
# Telegram knows no way to quote these in a file's name.
_UNQUOTABLE: Final = re.compile(r'[\x00-\x1f"\\/]+')


class Uploads:
    """Belongs to the event loop; the spool's work is done on threads."""

    def __init__(self, settings: Settings) -> None:
        self._spool = Spool(settings.spool_url)
        self._keep_seconds = settings.spool_seconds
        self._sweeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Make the spool, and sweep it now and then. A spool that cannot be had refuses uploads, and nothing else."""
        try:
            await asyncio.to_thread(self._spool.prepare)
        except SpoolError as error:
            logger.warning("uploads are refused: %s", error)
        self._sweeper = asyncio.create_task(self._sweep_now_and_then(), name="floodgate-spool-sweep")

    async def stop(self) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()

    async def keep(self, job: Job, files: Mapping[str, UploadFile]) -> Job:
        """The job with references to its files, which are safe now.

        Raises:
            RefusalError: the spool is missing, full or not to be written. Nothing is kept.
        """
        if not files:
            return job
        kept: list[SpooledFile] = []
        try:
            for number, (name, file) in enumerate(files.items()):
                filename = _UNQUOTABLE.sub("_", file.filename or "")[-200:] or "file"
                kept.append(
                    await asyncio.to_thread(self._spool.put, job.bot, job.id, number, name[:200], filename, file.file)
                )
        except SpoolError as error:
            await self.drop(job)
            raise RefusalError(507, f"Insufficient Storage: nothing was accepted. {error}") from None
        return job.model_copy(update={"files": tuple(kept)})

    async def drop(self, job: Job) -> None:
        """Forget the files of a job that was not accepted, or was taken back."""
        try:
            await asyncio.to_thread(self._spool.remove, job.bot, job.id)
        except SpoolError as error:
            logger.warning("the files of job %s stay until they are swept: %s", job.id, error)

    async def _sweep_now_and_then(self) -> None:
        while True:
            try:
                swept = await asyncio.to_thread(self._spool.sweep, self._keep_seconds)
                if swept:
                    logger.info("%d old files were swept from the spool", swept)
            except SpoolError as error:
                logger.warning("the spool was not swept: %s", error)
            await asyncio.sleep(SWEEP_SECONDS)
