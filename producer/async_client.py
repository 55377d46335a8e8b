"""The client for programs on an event loop: FastAPI, aiohttp, async workers.

It runs on the program's loop and starts no thread of its own, except for campaigns. Blocking work on files and on the
state store runs in the loop's executor, and so does the listener for results while a caller waits for one. A program
that blocks its loop for longer than the heartbeat loses the connection; the next job opens a new one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Coroutine, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack

from floodgate.broker.admission.contract import Record
from floodgate.broker.amqp.connections import Connections
from floodgate.broker.errors import ConfirmTimeoutError, FloodgateError, RabbitMQError
from floodgate.broker.messages.job import Job
from floodgate.broker.settings.model import Settings, load_settings
from floodgate.producer.bot_api import BotApi, ChatId
from floodgate.producer.campaigns import campaigns_of
from floodgate.producer.core import Composer, as_job
from floodgate.producer.enqueue_batch import EnqueueBatch
from floodgate.producer.ledger import Ledger, result_of, seconds_of
from floodgate.producer.queue_declarer import QueueDeclarer
from floodgate.producer.streaming.message import AsyncMessageStream
from floodgate.producer.streaming.options import StreamOptions
from floodgate.producer.streaming.pipeline import LedgerPipeline
from floodgate.producer.streaming.streams import Streams
from floodgate.producer.uploads import Attachment, UploadStore
from floodgate.producer.waiting import Waiting, ended, on_the_loops_executor

if TYPE_CHECKING:
    from floodgate.producer.campaigns.operations.async_service import AsyncCampaigns


class AsyncClient(BotApi[Coroutine[Any, Any, Job]]):
    """:class:`~floodgate.producer.client.Client` for an event loop: the same methods, as coroutines.

    Cancelling a task that waits for RabbitMQ's confirm does not take its job back: the job may have been accepted.

    Args:
        settings: the settings to use; None reads ``FLOODGATE_*`` and ``.env``. Enqueueing needs no tokens.
        bot: the bot that sends jobs which name none. None means the only configured bot, or else ``default``.
        connections: connections to share with the rest of the process; closing the client leaves them open.

    Raises:
        SettingsError: a setting is wrong.
    """

    def __init__(
        self, settings: Settings | None = None, *, bot: str | None = None, connections: Connections | None = None
    ) -> None:
        settings = settings or load_settings()
        self._settings = settings
        self._campaigns: AsyncCampaigns | None = None
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
        self._streams = Streams(settings, self._composer, LedgerPipeline(self._publish, self._ledger))

    def job(self, method: str, /, **given: Any) -> Job:
        """Make a job without enqueueing it, from a method's parameters and
        :class:`~floodgate.producer.core.JobOptions`.

        Raises:
            JobError: the method, the bot, a parameter or an option is wrong.
        """
        return self._composer.job(method, given)

    async def call(self, method: str, /, **given: Any) -> Job:
        """Enqueue a call to any Bot API method; return the job once RabbitMQ has it on disk.

        Raises:
            JobError: the method, the bot, a parameter, a file or an option is wrong. Nothing was queued.
            SpoolError: a file cannot be stored. Nothing was queued.
            RabbitMQError: as in :meth:`enqueue`.
        """
        job, attachments = self._composer.call(method, given)
        return await (self._upload(job, attachments) if attachments else self.enqueue(job))

    async def enqueue(self, job: Job) -> Job:
        """Enqueue a job; return it once RabbitMQ has it on disk. A job that is enqueued twice is sent once.

        If the job has a ``dedupe_key`` and the state store can be reached, the returned job says in ``known`` whether
        the ledger already has a job under that key, and in ``died`` why that job is a dead letter, which it remains.
        The ledger does not list a job that no worker has picked up yet; such a job is still sent only once.

        Raises:
            DedupeKeyError: the key was already used for something else. Nothing was queued.
            RabbitMQUnreachableError: no configured address answered in time.
            PublishError: RabbitMQ did not accept the job; the subclasses say why, and whether it may have been queued.
        """
        job = await self._publish(job)
        await self._report([job])
        return job

    async def enqueue_many(self, jobs: Iterable[Job] | AsyncIterable[Job]) -> int:
        """Enqueue every job of an iterable of any length, in order and in constant memory; return their number.

        Raises:
            EnqueueManyError: not every job was accepted. Says how many are safe, and which of the others were tried.
        """
        count = 0
        async for _ in self.enqueue_each(jobs):
            count += 1
        return count

    async def enqueue_each(self, jobs: Iterable[Job] | AsyncIterable[Job]) -> AsyncIterator[Job]:
        """Like :meth:`enqueue_many`, but yield each job, in order, once it is safe.

        Jobs are read ahead of those yielded, up to the publish window. Leaving the loop early does not take them back.

        Raises:
            EnqueueManyError: not every job was accepted.
        """
        batch = EnqueueBatch(self._window, self._declarer)
        try:
            async for job in _each(jobs):
                await self._declarer.aopen(as_job(job).bot)
                publication = self._composer.publication(job)
                if batch.add(await self._recognised(job), publication):
                    await self._submit(batch)
                    async for confirmed in self._confirmed(batch):
                        yield confirmed
                if batch.fault:
                    break
        except Exception as error:
            await self._submit(batch)
            async for confirmed in self._confirmed(batch, all_of_them=True):
                yield confirmed
            raise batch.error(error) from error
        await self._submit(batch)
        async for confirmed in self._confirmed(batch, all_of_them=True):
            yield confirmed
        if batch.fault:
            raise batch.error(batch.fault) from batch.fault

    async def status(self, job: Job | str) -> Record | None:
        """Look up where a job stands: waiting, sending, sent or dead. None means that no worker has picked it up yet,
        or that the ledger no longer remembers it. An id is looked up among the jobs of the client's own bot.

        Raises:
            StateUnavailableError: the state store cannot answer.
        """
        return await asyncio.to_thread(self._ledger.look, job)

    async def cancel(self, *jobs: Job | str, campaign: str | None = None, bot: str | None = None) -> list[Record]:
        """Cancel waiting jobs, given as jobs or ids, and return their records; or cancel a campaign, and return none.

        A cancelled job ends with the reason ``cancelled``. A job that was sent, or whose call is under way, stays as it
        is. Of a campaign, all jobs end that were enqueued before now, each when a worker comes to it; later jobs of the
        same name are sent. The jobs are those of the client's own bot, unless ``bot`` names another.

        Raises:
            InvalidParamsError: neither a job nor a campaign is given, or both are, or an id is not one.
            StateUnavailableError: the state store cannot answer.
        """
        return await asyncio.to_thread(self._ledger.cancel, jobs, campaign, bot)

    async def result(self, job: Job | str, *, timeout: timedelta | float = 30) -> Any:
        """Wait up to ``timeout`` for Telegram's own result, and return it as JSON values. A number is seconds.

        Any number of tasks may wait at once: they share one listener.

        Raises:
            DeadLetteredError: the job will not be sent; says why.
            NotSettledError: the job did not finish in time, or no worker knows it. A job that was enqueued is safe.
            StateUnavailableError: the state store cannot answer.
            ClosedError: the client was closed in the meantime.
        """
        record = await self.status(job)
        if not ended(record) and seconds_of(timeout) > 0:
            record = await self._awaited(job, seconds_of(timeout))
        return result_of(job, record)

    def stream(self, chat_id: ChatId, **options: Unpack[StreamOptions]) -> AsyncMessageStream:
        """Begin a message that grows, for ``async with``: see docs/streaming.md.

        Raises:
            JobError: an option is wrong, or the bot is unknown.
        """
        return AsyncMessageStream(self._streams.request(chat_id, options), self._streams.begin)

    @property
    def campaigns(self) -> AsyncCampaigns:
        """The campaigns: one message to very many chats. Nothing is opened before the first operation; they run on up
        to four threads, which :meth:`close` ends.

        Raises:
            SettingsError: the extra ``campaigns`` is not installed.
        """
        if self._campaigns is None:
            campaigns = campaigns_of(self._settings, self._composer.bot)
            from floodgate.producer.campaigns.operations.async_service import AsyncCampaigns

            self._campaigns = AsyncCampaigns(campaigns)
        return self._campaigns

    async def close(self) -> None:
        """Release the connection. Safe to call twice, and on a client that was never used."""
        if self._campaigns is not None:
            await self._campaigns.close()
            self._campaigns = None
        await self._declarer.aclose()
        self._ledger.begin_close()  # frees the executor's thread, which the next line may be waiting for
        await asyncio.to_thread(self._ledger.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _upload(self, job: Job, attachments: Sequence[Attachment]) -> Job:
        """Enqueue a job with files. If the ledger already has a job under its key, the files are not stored again."""
        if (job := await self._recognised(job)).known:
            return job
        job = await asyncio.to_thread(self._upload_store.keep, job, attachments)
        try:
            return await self.enqueue(job)
        except ConfirmTimeoutError:
            raise  # the job may have been accepted, and then it needs its files
        except FloodgateError:
            await asyncio.to_thread(self._upload_store.discard, job, job.files)
            raise

    async def _publish(self, job: Job) -> Job:
        """Enqueue a job without a report. A stream has at most two on the way, and a report would supersede neither."""
        publication = self._composer.publication(as_job(job))
        await self._declarer.aopen(job.bot)
        job = await self._recognised(job)
        await self._declarer.apublish(job.bot, publication)
        return job

    async def _awaited(self, job: Job | str, seconds: float) -> Record | None:
        future: asyncio.Future[Record] = asyncio.get_running_loop().create_future()
        with self._ledger.awaited(job, future), suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                record = await asyncio.to_thread(self._ledger.look_awaited, job)
                if ended(record):  # it finished before the future was registered
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

    async def _confirmed(self, batch: EnqueueBatch, *, all_of_them: bool = False) -> AsyncIterator[Job]:
        """Yield the confirmed jobs, waiting until another batch may be submitted, or for all of them."""
        while True:
            for confirmed in batch.confirmed():
                await self._report(confirmed)
                for job in confirmed:
                    yield job
            receipt = batch.awaited(all_of_them=all_of_them)
            if receipt is None:
                return
            if isinstance(receipt, asyncio.Future):
                await receipt
            else:  # the timer submitted this batch
                assert isinstance(receipt, Future)
                await asyncio.wrap_future(receipt)

    async def _report(self, jobs: Sequence[Job]) -> None:
        if asks := self._ledger.to_report(jobs):
            await asyncio.to_thread(self._ledger.report, asks)

    async def _recognised(self, job: Job) -> Job:
        return job if job.dedupe_key is None else await asyncio.to_thread(self._ledger.recognised, job)


async def _each(jobs: Iterable[Job] | AsyncIterable[Job]) -> AsyncIterator[Job]:
    if isinstance(jobs, AsyncIterable):
        async for job in jobs:
            yield job
    else:
        for job in jobs:
            yield job
