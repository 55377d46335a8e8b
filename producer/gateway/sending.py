"""Serves a call to a queued method: turns it into a job, and waits for the result.

    job → (already known?) → room? → register → enqueue → result, or time-out

This order makes it safe to disconnect, to repeat a call and to kill the process at any point. The caller is registered
before the job is published, so no result is missed. A call with a key becomes the job of that key. If that job has
finished, its result is the answer; if it is under way, the caller waits for it, too; otherwise it is published, perhaps
for the second time, and sent once because both have the same id.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from floodgate.broker.admission.contract import Record, Standing
from floodgate.broker.errors import (
    ConfirmTimeoutError,
    DedupeKeyError,
    InvalidParamsError,
    JobError,
    RabbitMQError,
    StateError,
)
from floodgate.broker.messages.chats import chat_key
from floodgate.broker.messages.job import Job, unix_ms
from floodgate.broker.messages.method_table import Charge
from floodgate.broker.settings.model import Settings
from floodgate.broker.state.calls import BatchedAdmission
from floodgate.producer.async_client import AsyncClient
from floodgate.producer.core import Composer
from floodgate.producer.gateway.answers import RefusalError, accepted, ended, still_waiting
from floodgate.producer.gateway.backlog import Backlog
from floodgate.producer.gateway.files import GatewayUploads
from floodgate.producer.gateway.request_body import RequestBody
from floodgate.producer.gateway.request_options import RequestOptions
from floodgate.producer.ledger import check_content
from floodgate.producer.telegram_answer import as_answered
from floodgate.producer.waiting import JobKey, Waiting
from floodgate.producer.waiting import ended as has_ended

# A bot serves about 30 callers a second, so there is room again soon.
_FULL_RETRY_SECONDS: Final = 1
# Most results arrive sooner than this, so that no task is needed to notice that the caller disconnects.
BEFORE_WATCHING_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class Parts:
    """The process's objects that sending uses."""

    settings: Settings
    composer: Composer
    client: AsyncClient
    store: BatchedAdmission
    waiting: Waiting
    backlog: Backlog
    uploads: GatewayUploads


class Sending:
    """Serves calls to queued methods. Belongs to the event loop."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._draining = False
        self._callers: set[asyncio.Future[Record]] = set()
        self._contents: dict[
            JobKey, str
        ] = {}  # of keyed jobs whose callers wait here; the ledger may not list them yet

    @property
    def is_draining(self) -> bool:
        """Whether the gateway shuts down, and waits for nobody any more."""
        return self._draining

    def drain(self) -> None:
        """Answer all callers that wait, before the process exits: their jobs are safe."""
        self._draining = True
        for future in self._callers:
            future.cancel()

    async def send(
        self, request: Request, bot: str, method: str, reading: RequestBody, options: RequestOptions
    ) -> Response:
        """Answer a Bot API call to a queued method. Its body has been read.

        Raises:
            RefusalError: nothing was accepted.
        """
        job = self._job(bot, method, reading, options)
        known = await self._known(job) if options.keyed else None
        if known is not None and has_ended(known):
            return self._ended(job, known)
        self._check_room()
        key = (job.bot, job.id)
        future = self._enter(key)
        try:
            if job.content is not None:
                _check(job, Record(Standing.WAITING, content=self._contents.setdefault(key, job.content)))
            if known is None:
                job = await self._accept(job, reading)
            elif (record := await self._look_awaited(key)) is not None and has_ended(record):
                return self._ended(job, record)  # it finished before its caller was registered
            if not options.wait_seconds or _far_ahead(job, options.wait_seconds):
                return accepted(job)
            typing = self._parts.settings.charge_of(job) is Charge.TYPING
            seconds = _worth_waiting(job, options.wait_seconds) if typing else options.wait_seconds
            record = await self._outcome(request, future, seconds)
            if record is not None:
                return self._ended(job, record)
            return accepted(job) if typing else self._still_waiting(job.id, seconds)
        finally:
            self._leave(key, future)

    async def accept(
        self, bot: str, method: str, reading: RequestBody, options: RequestOptions
    ) -> tuple[str, Record | None]:
        """Enqueue a job without waiting for its result. Return its id, and its record if it was known before.

        Raises:
            RefusalError: nothing was accepted.
        """
        job = self._job(bot, method, reading, options)
        known = await self._known(job) if options.keyed else None
        if known is None:
            await self._accept(job, reading)
        return job.id, known

    async def result(self, request: Request, bot: str, job_id: str, wait_seconds: float) -> Response:
        """Wait for Telegram's answer to an accepted job.

        Raises:
            StateError: the state store cannot answer.
        """
        self._check_room()
        future = self._enter((bot, job_id))
        try:
            record = await self._found((bot, job_id))
            if record is None or not has_ended(record):
                record = await self._outcome(request, future, wait_seconds)
            return self._still_waiting(job_id, wait_seconds) if record is None else ended(job_id, record)
        finally:
            self._leave((bot, job_id), future)

    def _check_room(self) -> None:
        if self._parts.waiting.count >= self._parts.settings.gateway.max_waiting:
            raise RefusalError(
                429, f"Too Many Requests: retry after {_FULL_RETRY_SECONDS}", retry_after=_FULL_RETRY_SECONDS
            )

    def _enter(self, key: JobKey) -> asyncio.Future[Record]:
        future: asyncio.Future[Record] = asyncio.get_running_loop().create_future()
        self._parts.waiting.enter(key, future)
        self._callers.add(future)
        return future

    def _leave(self, key: JobKey, future: asyncio.Future[Record]) -> None:
        self._callers.discard(future)
        self._parts.waiting.leave(key, future)
        if not self._parts.waiting.awaits(key):
            self._contents.pop(key, None)

    def _job(self, bot: str, method: str, reading: RequestBody, options: RequestOptions) -> Job:
        _check_chat(reading.params)
        try:
            return self._parts.composer.unchecked(method, reading.params, {"bot": bot, **options.options})
        except JobError as error:
            raise RefusalError(400, f"Bad Request: {error}") from None

    async def _known(self, job: Job) -> Record | None:
        """Look up a job that may have been accepted before; None means that it must be published."""
        content = self._contents.get((job.bot, job.id))
        known = Record(Standing.WAITING, content=content) if content else await self._look(job.bot, job.id)
        _check(job, known)
        return known

    async def _found(self, key: JobKey) -> Record | None:
        """Look up a job that a caller awaits. If it was superseded, the caller waits on for its successor."""
        record = await self._parts.store.lookup(*key)
        if record is None or record.chain is None or has_ended(record):
            return record
        self._parts.waiting.follow(key, record.chain)
        return await self._parts.store.lookup(*key)

    async def _look_awaited(self, key: JobKey) -> Record | None:
        try:
            return await self._found(key)
        except StateError:
            return None  # its end is reported, or found by the next audit

    async def _look(self, bot: str, job_id: str) -> Record | None:
        try:
            return await self._parts.store.lookup(bot, job_id)
        except StateError:
            return None  # the job is then published again, and still sent once

    async def _accept(self, job: Job, reading: RequestBody) -> Job:
        with self._parts.backlog.taking(job.bot, job.priority):
            job = await self._parts.uploads.keep(job, reading.files)
            await self._enqueue(job)
        return job

    async def _enqueue(self, job: Job) -> None:
        try:
            await self._parts.client.enqueue(job)
        except DedupeKeyError as error:  # another gateway was faster
            await self._parts.uploads.drop(job)
            raise _conflict(job, error) from None
        except InvalidParamsError as error:
            await self._parts.uploads.drop(job)
            raise RefusalError(400, f"Bad Request: {error}") from None
        except ConfirmTimeoutError as error:
            raise RefusalError(408, f"{error} Job {job.id} may be accepted.", floodgate_job_id=job.id) from None
        except RabbitMQError as error:
            await self._parts.uploads.drop(job)
            raise RefusalError(503, f"Service Unavailable: nothing was accepted. {error}") from None

    def _ended(self, job: Job, record: Record) -> Response:
        return ended(job.id, as_answered(record, self._parts.settings.charge_of(job)))

    def _still_waiting(self, job_id: str, seconds: float) -> Response:
        why = "The gateway is shutting down." if self._draining else f"No result within {seconds:g} s."
        return still_waiting(job_id, why)

    async def _outcome(self, request: Request, future: asyncio.Future[Record], seconds: float) -> Record | None:
        """Wait for the record of an ended job. None if there is none in time, or the gateway shuts down."""
        patience = min(seconds, BEFORE_WATCHING_SECONDS)
        await asyncio.wait((future,), timeout=0 if self._draining else patience)
        if not future.done() and not self._draining:
            gone = asyncio.ensure_future(_hung_up(request))
            try:
                await asyncio.wait((future, gone), timeout=seconds - patience, return_when=asyncio.FIRST_COMPLETED)
            finally:
                gone.cancel()
        return future.result() if future.done() and not future.cancelled() else None


async def _hung_up(request: Request) -> None:
    """Return when the caller disconnects. Its body has been read, so no other message can arrive."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _worth_waiting(job: Job, seconds: float) -> float:
    """How long the caller of typing waits at most: until the job, if it is not sent by then, will be shed."""
    worth = job.worth(unix_ms())
    return seconds if worth is None else max(0.0, min(seconds, worth.total_seconds()))


def _far_ahead(job: Job, seconds: float) -> bool:
    return job.not_before_ms is not None and job.not_before_ms - unix_ms() > seconds * 1000


def _check(job: Job, known: Record | None) -> None:
    """Refuse a key that was already used for something else."""
    try:
        check_content(job, known)
    except DedupeKeyError as error:
        raise _conflict(job, error) from None


def _conflict(job: Job, error: DedupeKeyError) -> RefusalError:
    return RefusalError(409, f"Conflict: {error}", floodgate_job_id=job.id)


def _check_chat(params: dict[str, Any]) -> None:
    """Refuse an invalid chat id in Telegram's words rather than Floodgate's."""
    if "chat_id" not in params:
        return
    if params["chat_id"] == "":
        raise RefusalError(400, "Bad Request: chat_id is empty")
    try:
        chat_key(params["chat_id"])
    except InvalidParamsError:
        raise RefusalError(400, "Bad Request: chat not found") from None
