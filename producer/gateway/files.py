"""Writes uploads to the spool before their job is accepted, and deletes them if it is not."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from starlette.datastructures import UploadFile

from floodgate.broker.errors import InvalidParamsError, SpoolError
from floodgate.broker.messages.job import Job
from floodgate.broker.settings.model import Settings
from floodgate.broker.uploads.sweeper import Sweeper
from floodgate.producer.gateway.answers import RefusalError
from floodgate.producer.uploads import Attachment, UploadStore, quotable

logger = logging.getLogger("floodgate.gateway")


class GatewayUploads:
    """The gateway's uploads. Belongs to the event loop; the spool's I/O runs on threads."""

    def __init__(self, settings: Settings) -> None:
        self._upload_store = UploadStore(settings.spool_url)
        self._spool = self._upload_store.spool
        self._sweeper = Sweeper(self._spool, settings.spool_seconds)

    async def start(self) -> None:
        """Create the spool and start sweeping it. If the spool is unavailable, only calls with uploads are refused."""
        try:
            await asyncio.to_thread(self._upload_store.prepare)
        except SpoolError as error:
            logger.warning("uploads are refused: %s", error)
        await self._sweeper.start()

    async def stop(self) -> None:
        """Stop sweeping the spool."""
        await self._sweeper.stop()

    async def keep(self, job: Job, files: Mapping[str, UploadFile]) -> Job:
        """Store a job's files and return the job with references to them.

        Raises:
            RefusalError: a file is empty, or the spool is missing, full or not writable. Nothing is stored.
        """
        if not files:
            return job
        attachments = [
            Attachment(name[:200], name[:200], quotable(file.filename or ""), file.file) for name, file in files.items()
        ]
        try:
            return await asyncio.to_thread(self._upload_store.keep, job, attachments)
        except InvalidParamsError as error:
            raise RefusalError(400, f"Bad Request: {error}") from None
        except SpoolError as error:
            raise RefusalError(507, f"Insufficient Storage: nothing was accepted. {error}") from None

    async def drop(self, job: Job) -> None:
        """Delete the files of a job that was not accepted."""
        if job.files:
            await asyncio.to_thread(self._upload_store.discard, job, job.files)

    async def forget(self, job: Job) -> None:
        """Delete all files under the id of a job that was cancelled."""
        try:
            await asyncio.to_thread(self._spool.remove, job.bot, job.id)
        except SpoolError as error:
            logger.warning("could not delete the files of job %s; the sweeper will: %s", job.id, error)
