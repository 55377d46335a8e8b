"""The client for programs on an event loop: FastAPI, aiohttp, async workers.

It lives on the program's loop and has no thread of its own: files, and a state store that blocks, are left to threads
of the loop's executor, one of which also hears of results while somebody waits for one. A program that blocks its loop
for longer than the heartbeat loses the connection; the next job opens another.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Coroutine, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import Any, Self

from floodgate.broker.admission.contract import Record
from floodgate.broker.amqp.connections import Connections
from floodgate.broker.errors import ConfirmTimeoutError, FloodgateError, RabbitMQError, UnroutableError
from floodgate.broker.messages.job import Job
from floodgate.broker.settings.model import Settings, load_settings
from floodgate.producer.bot_api import BotApi
from floodgate.producer.core import Composer, as_job
from floodgate.producer.enqueue_batch import EnqueueBatch
from floodgate.producer.ledger import Ledger, result_of, seconds_of
from floodgate.producer.queue_declarer import QueueDeclarer
from floodgate.producer.uploads import Attachment, UploadStore
from floodgate.producer.waiting import Waiting, ended, on_the_loops_executor


class AsyncClient(BotApi[Coroutine[Any, Any, Job]]):
    """:class:`~floodgate.producer.client.Client` for an event loop: the same methods, to be awaited.

    A task cancelled while it waits for the confirm leaves its job on the way: it may be accepted.

    Parameters:
        settings: None reads ``FLOODGATE_*`` and ``.env``. Tokens are not needed to enqueue.
        bot: the bot that sends, where a job does not say. None is the only configured one, or else ``default``.
        connections: those of the process, to share them; they stay open when the client is closed.

    Raises:
        SettingsError: a setting is wrong.
    """

    def __init__(
        self, settings: Settings | None = None, *, bot: str | None = None, connections: Connections | None = None
    ) -> None:
        settings = settings or load_settings()
        self._window = settings.publish_window
        self._composer = Composer(settings, bot)
        self._ledger = Ledger(
            settings, self._composer.bot, partial(Waiting, start=on_the_loops_executor, linger_seconds=0.0)
        )
        self._upload_store = UploadStore(settings.spool_url)
        self._declarer = QueueDeclarer(
            self._composer,
            connections
            or Connections(
                settings, "client", on_callers_loop=True, patience_seconds=settings.publish_patience_seconds
            ),
            owned=connections is None,
        )

    def job(self, method: str, /, **given: Any) -> Job:
        """A job, not enqueued. ``given`` are the method's parameters and :class:`~floodgate.producer.core.JobOptions`.

        Raises:
            JobError: the method, the bot, a parameter or an option is wrong.
        """
        return self._composer.job(method, given)

    async def call(self, method: str, /, **given: Any) -> Job:
        """Enqueue a call of any Bot API method; returns the job when RabbitMQ has it on disk.

        Raises:
            JobError: the method, the bot, a parameter, a file or an option is wrong. Nothing was queued.
            SpoolError: a file cannot be kept. Nothing was queued.
            RabbitMQError: as in :meth:`enqueue`.
        """
        job, attachments = self._composer.call(method, given)
        return await (self._upload(job, attachments) if attachments else self.enqueue(job))

    async def enqueue(self, job: Job) -> Job:
        """Put a job in; returns it when RabbitMQ has it on disk. The same job put in twice is sent once.

        Of a job with a ``dedupe_key`` the returned one says in ``known`` whether the ledger knew it before, if a state
        store can be asked, and in ``died`` why that one is a dead letter, which it stays. One that no worker has come
        to yet is in no ledger: it is sent once all the same.

        Raises:
            DedupeKeyError: the ledger knows its key for something else. Nothing was queued.
            RabbitMQUnreachableError: no configured address answered in time.
            PublishError: RabbitMQ did not take the job; its leaves say why, and what is known.
        """
        publication = self._composer.publication(as_job(job))
        await self._declarer.aopen(job.bot)
        job = await self._recognised(job)
        try:
            await self._declarer.publisher.apublish(publication)
        except UnroutableError:
            # Its queue was deleted under a process that had declared it. Nothing was accepted, so nothing is doubled.
            self._declarer.forget(job.bot)
            await self._declarer.aopen(job.bot)
            await self._declarer.publisher.apublish(publication)
        return job

    async def enqueue_many(self, jobs: Iterable[Job] | AsyncIterable[Job]) -> int:
        """Put in all jobs of an iterable of any length, in its order, in constant memory; returns how many.

        Raises:
            EnqueueManyError: it ended in the middle. Says how many are safe and which of those taken are not.
        """
        count = 0
        async for _ in self.enqueue_each(jobs):
            count += 1
        return count

    async def enqueue_each(self, jobs: Iterable[Job] | AsyncIterable[Job]) -> AsyncIterator[Job]:
        """As :meth:`enqueue_many`, but yields each job once it is safe, in order.

        Jobs are taken ahead of those yielded, up to the publish window; leaving the loop early leaves them accepted.

        Raises:
            EnqueueManyError: it ended in the middle.
        """
        batch = EnqueueBatch(self._window, self._declarer)
        try:
            async for job in _each(jobs):
                await self._declarer.aopen(as_job(job).bot)
                publication = self._composer.publication(job)
                if batch.add(await self._recognised(job), publication):
                    await self._submit(batch)
                    async for confirmed in _confirmed(batch):
                        yield confirmed
                if batch.fault:
                    break
        except Exception as error:
            await self._submit(batch)
            async for confirmed in _confirmed(batch, all_of_them=True):
                yield confirmed
            raise batch.error(error) from error
        await self._submit(batch)
        async for confirmed in _confirmed(batch, all_of_them=True):
            yield confirmed
        if batch.fault:
            raise batch.error(batch.fault) from batch.fault

    async def status(self, job: Job | str) -> Record | None:
        """Where a job stands: waiting, sending, sent or dead; None when no worker has come to it yet, or it is so
        long ago that it is forgotten. An id is looked for among the jobs of the client's own bot.

        Raises:
            StateUnavailableError: the state store cannot answer.
        """
        return await asyncio.to_thread(self._ledger.look, job)

    async def result(self, job: Job | str, *, timeout: timedelta | float = 30) -> Any:
        """Telegram's own result, as JSON values. Waits for it up to ``timeout``; a number is seconds.

        Any number of tasks may wait at once: one listener hears for all of them.

        Raises:
            DeadLetteredError: the job will not be sent; says why.
            NotSettledError: it has not ended in time. It is safe.
            StateUnavailableError: the state store cannot answer.
            ClosedError: the client was closed meanwhile.
        """
        record = await self.status(job)
        if not ended(record) and seconds_of(timeout) > 0:
            record = await self._awaited(job, seconds_of(timeout))
        return result_of(job, record)

    async def close(self) -> None:
        """Release the connection. Safe to call twice, and unused."""
        await self._declarer.aclose()
        self._ledger.begin_close()  # which frees the thread of the executor on which the rest may have to wait
        await asyncio.to_thread(self._ledger.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _upload(self, job: Job, attachments: Sequence[Attachment]) -> Job:
        """Enqueue a job with files. One whose key the ledger knows is on its way, or was: it gets none anew."""
        if (job := await self._recognised(job)).known:
            return job
        job = await asyncio.to_thread(self._upload_store.keep, job, attachments)
        try:
            return await self.enqueue(job)
        except ConfirmTimeoutError:
            raise  # it may be there, and then it needs them
        except FloodgateError:
            await asyncio.to_thread(self._upload_store.discard, job, job.files)
            raise

    async def _awaited(self, job: Job | str, seconds: float) -> Record | None:
        future: asyncio.Future[Record] = asyncio.get_running_loop().create_future()
        with self._ledger.awaited(job, future), suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                if ended(record := await self.status(job)):  # it ended in the moment before
                    return record
                return await future
        return await self.status(job)

    async def _submit(self, batch: EnqueueBatch) -> None:
        jobs, publications = batch.close()
        if not jobs:
            return
        try:
            batch.submitted(jobs, await self._declarer.publisher.asubmit_many(publications))
        except RabbitMQError as error:
            batch.refused(jobs, error)

    async def _recognised(self, job: Job) -> Job:
        return job if job.dedupe_key is None else await asyncio.to_thread(self._ledger.recognised, job)


async def _each(jobs: Iterable[Job] | AsyncIterable[Job]) -> AsyncIterator[Job]:
    if isinstance(jobs, AsyncIterable):
        async for job in jobs:
            yield job
    else:
        for job in jobs:
            yield job


async def _confirmed(batch: EnqueueBatch, *, all_of_them: bool = False) -> AsyncIterator[Job]:
    """The confirmed jobs. Waits while no other batch may be submitted, or for all, within the publisher's bounds."""
    for job in batch.confirmed():
        yield job
    while receipt := batch.awaited(all_of_them=all_of_them):
        if isinstance(receipt, asyncio.Future):
            await receipt
        else:  # of a batch that left by the timer
            assert isinstance(receipt, Future)
            await asyncio.wrap_future(receipt)
        for job in batch.confirmed():
            yield job
