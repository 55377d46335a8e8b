"""Uploads on their way into the spool."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.datastructures import UploadFile

from broker.job import Job
from broker.settings import Settings


class Uploads:
    def __init__(self, settings: Settings) -> None:
        pass

    async def keep(self, job: Job, files: Mapping[str, UploadFile]) -> Job:
        return job

    async def drop(self, job: Job) -> None:
        return
