"""Uploads on their way into the spool: kept before their job is accepted, dropped when it is not."""

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
    """Belongs to the event loop; the spool's work is done on threads."""

    def __init__(self, settings: Settings) -> None:
        self._upload_store = UploadStore(settings.spool_url)
        self._spool = self._upload_store.spool
        self._sweeper = Sweeper(self._spool, settings.spool_seconds)

    async def start(self) -> None:
        """Make the spool, and sweep it now and then. A spool that cannot be had refuses uploads, and nothing else."""
        try:
            await asyncio.to_thread(self._upload_store.prepare)
        except SpoolError as error:
            logger.warning("uploads are refused: %s", error)
        await self._sweeper.start()

    async def stop(self) -> None:
        await self._sweeper.stop()

    async def keep(self, job: Job, files: Mapping[str, UploadFile]) -> Job:
        """The job with references to its files, which are safe now.

        Raises:
            RefusalError: the spool is missing, full or not to be written. Nothing is kept.
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
        """Forget the files of a job that was not accepted."""
        if job.files:
            await asyncio.to_thread(self._upload_store.discard, job, job.files)

    async def forget(self, job: Job) -> None:
        """Forget all files under the id of a job that was taken back."""
        try:
            await asyncio.to_thread(self._spool.remove, job.bot, job.id)
        except SpoolError as error:
            logger.warning("the files of job %s stay until they are swept: %s", job.id, error)
