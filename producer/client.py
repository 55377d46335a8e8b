"""The client for synchronous programs: scripts, Django, Flask, Celery tasks, threads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, wait
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack

from floodgate.broker.admission.contract import Record
from floodgate.broker.amqp.connections import Connections
from floodgate.broker.errors import ConfirmTimeoutError, FloodgateError, RabbitMQError, UnroutableError
from floodgate.broker.messages.job import Job
from floodgate.broker.messages.publication import Publication
from floodgate.broker.settings.model import Settings, load_settings
from floodgate.producer.bot_api import BotApi, ChatId
from floodgate.producer.campaigns import campaigns_of
from floodgate.producer.core import Composer, as_job
from floodgate.producer.enqueue_batch import EnqueueBatch
from floodgate.producer.ledger import Ledger, result_of, seconds_of
from floodgate.producer.queue_declarer import QueueDeclarer
from floodgate.producer.streaming.message import AsyncMessageStream, MessageStream
from floodgate.producer.streaming.options import StreamOptions
from floodgate.producer.streaming.pipeline import LedgerPipeline
from floodgate.producer.streaming.streams import Streams
from floodgate.producer.uploads import Attachment, UploadStore
from floodgate.producer.waiting import ended

if TYPE_CHECKING:
    from floodgate.producer.campaigns.operations.service import Campaigns


class Client(BotApi[Job]):
    """Enqueues Bot API calls. Safe to use from any thread, and from processes forked after it was created.

    The connection opens at the first job and stays open. A program may exit without ``close``: every job that was
    returned is safe.

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
        self._campaigns: Campaigns | None = None
        self._window = settings.publish_window
        self._composer = Composer(settings, bot)
        self._ledger = Ledger(settings, self._composer.bot)
        self._upload_store = UploadStore(settings.spool_url)
        self._connections = connections or Connections(
            settings, "client", patience_seconds=settings.publish_patience_seconds
        )
        self._declarer = QueueDeclarer(self._composer, self._connections, owned=connections is None)
        self._streams = Streams(settings, self._composer, LedgerPipeline(self._enqueue_on_loop, self._ledger))

    def job(self, method: str, /, **given: Any) -> Job:
        """Make a job without enqueueing it, from a method's parameters and
        :class:`~floodgate.producer.core.JobOptions`.

        Raises:
            JobError: the method, the bot, a parameter or an option is wrong.
        """
        return self._composer.job(method, given)

    def call(self, method: str, /, **given: Any) -> Job:
        """Enqueue a call to any Bot API method; return the job once RabbitMQ has it on disk.

        Raises:
            JobError: the method, the bot, a parameter, a file or an option is wrong. Nothing was queued.
            SpoolError: a file cannot be stored. Nothing was queued.
            RabbitMQError: as in :meth:`enqueue`.
        """
        job, attachments = self._composer.call(method, given)
        return self._upload(job, attachments) if attachments else self.enqueue(job)

    def enqueue(self, job: Job) -> Job:
        """Enqueue a job; return it once RabbitMQ has it on disk. A job that is enqueued twice is sent once.

        If the job has a ``dedupe_key`` and the state store can be reached, the returned job says in ``known`` whether
        the ledger already has a job under that key, and in ``died`` why that job is a dead letter, which it remains.
        The ledger does not list a job that no worker has picked up yet; such a job is still sent only once.

        Raises:
            DedupeKeyError: the key was already used for something else. Nothing was queued.
            RabbitMQUnreachableError: no configured address answered in time.
            PublishError: RabbitMQ did not accept the job; the subclasses say why, and whether it may have been queued.
        """
        publication = self._publication(job)
        job = self._ledger.recognised(job)
        try:
            self._declarer.publisher.publish(publication)
        except UnroutableError:
            # The queue was deleted after this process had declared it. Nothing was accepted, so no job is duplicated.
            self._declarer.forget(job.bot)
            self._declarer.open(job.bot)
            self._declarer.publisher.publish(publication)
        self._ledger.report(self._ledger.to_report([job]))
        return job

    def enqueue_many(self, jobs: Iterable[Job]) -> int:
        """Enqueue every job of an iterable of any length, in order and in constant memory; return their number.

        Raises:
            EnqueueManyError: not every job was accepted. Says how many are safe, and which of the others were tried.
        """
        return sum(1 for _ in self.enqueue_each(jobs))

    def enqueue_each(self, jobs: Iterable[Job]) -> Iterator[Job]:
        """Like :meth:`enqueue_many`, but yield each job, in order, once it is safe.

        Jobs are read ahead of those yielded, up to the publish window. Leaving the loop early does not take them back.

        Raises:
            EnqueueManyError: not every job was accepted.
        """
        batch = EnqueueBatch(self._window, self._declarer)
        try:
            for job in jobs:
                publication = self._publication(job)
                if batch.add(self._ledger.recognised(job), publication):
                    self._submit(batch)
                    yield from self._confirmed(batch)
                if batch.fault:
                    break
        except Exception as error:
            self._submit(batch)
            yield from self._confirmed(batch, all_of_them=True)
            raise batch.error(error) from error
        self._submit(batch)
        yield from self._confirmed(batch, all_of_them=True)
        if batch.fault:
            raise batch.error(batch.fault) from batch.fault

    def status(self, job: Job | str) -> Record | None:
        """Look up where a job stands: waiting, sending, sent or dead. None means that no worker has picked it up yet,
        or that the ledger no longer remembers it. An id is looked up among the jobs of the client's own bot.

        Raises:
            StateUnavailableError: the state store cannot answer.
        """
        return self._ledger.look(job)

    def cancel(self, *jobs: Job | str, campaign: str | None = None, bot: str | None = None) -> list[Record]:
        """Cancel waiting jobs, given as jobs or ids, and return their records; or cancel a campaign, and return none.

        A cancelled job ends with the reason ``cancelled``. A job that was sent, or whose call is under way, stays as it
        is. Of a campaign, all jobs end that were enqueued before now, each when a worker comes to it; later jobs of the
        same name are sent. The jobs are those of the client's own bot, unless ``bot`` names another.

        Raises:
            InvalidParamsError: neither a job nor a campaign is given, or both are, or an id is not one.
            StateUnavailableError: the state store cannot answer.
        """
        return self._ledger.cancel(jobs, campaign, bot)

    def result(self, job: Job | str, *, timeout: timedelta | float = 30) -> Any:
        """Wait up to ``timeout`` for Telegram's own result, and return it as JSON values. A number is seconds.

        Any number of threads may wait at once: they share one listener.

        Raises:
            DeadLetteredError: the job will not be sent; says why.
            NotSettledError: the job did not finish in time, or no worker knows it. A job that was enqueued is safe.
            StateUnavailableError: the state store cannot answer.
            ClosedError: the client was closed in the meantime.
        """
        record = self.status(job)
        if not ended(record) and seconds_of(timeout) > 0:
            record = self._awaited(job, seconds_of(timeout))
        return result_of(job, record)

    def stream(self, chat_id: ChatId, **options: Unpack[StreamOptions]) -> MessageStream:
        """Begin a message that grows, for ``with``: see docs/streaming.md. The client's own event loop writes it.

        Raises:
            JobError: an option is wrong, or the bot is unknown.
            RabbitMQUnreachableError: the client was closed.
        """
        request = self._streams.request(chat_id, options)
        return MessageStream(AsyncMessageStream(request, self._streams.begin), self._connections.io)

    @property
    def campaigns(self) -> Campaigns:
        """The campaigns: one message to very many chats. Nothing is opened before the first operation.

        Raises:
            SettingsError: the extra ``campaigns`` is not installed.
        """
        if self._campaigns is None:
            self._campaigns = campaigns_of(self._settings, self._composer.bot)
        return self._campaigns

    def close(self) -> None:
        """Release the connection. Safe to call twice, and on a client that was never used."""
        if self._campaigns is not None:
            self._campaigns.close()
            self._campaigns = None
        self._declarer.close()
        self._ledger.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def _enqueue_on_loop(self, job: Job) -> None:
        """Enqueue a job of a stream, which has at most two on the way: a report would supersede neither."""
        await self._declarer.apublish(job.bot, self._composer.publication(job))

    def _upload(self, job: Job, attachments: Sequence[Attachment]) -> Job:
        """Enqueue a job with files. If the ledger already has a job under its key, the files are not stored again."""
        if (job := self._ledger.recognised(job)).known:
            return job
        job = self._upload_store.keep(job, attachments)
        try:
            return self.enqueue(job)
        except ConfirmTimeoutError:
            raise  # the job may have been accepted, and then it needs its files
        except FloodgateError:
            self._upload_store.discard(job, job.files)
            raise

    def _awaited(self, job: Job | str, seconds: float) -> Record | None:
        future: Future[Record] = Future()
        with self._ledger.awaited(job, future):
            if ended(record := self._ledger.look_awaited(job)):  # it finished before the future was registered
                return record
            wait([future], timeout=seconds)
            return future.result() if future.done() else self.status(job)

    def _publication(self, job: Job) -> Publication:
        publication = self._composer.publication(as_job(job))
        self._declarer.open(job.bot)
        return publication

    def _submit(self, batch: EnqueueBatch) -> None:
        jobs, publications = batch.close()
        if not jobs:
            return
        try:
            batch.submitted(jobs, self._declarer.publisher.submit_many(publications))
        except RabbitMQError as error:
            batch.refused(jobs, error)

    def _confirmed(self, batch: EnqueueBatch, *, all_of_them: bool = False) -> Iterator[Job]:
        """Yield the confirmed jobs, waiting until another batch may be submitted, or for all of them."""
        while True:
            for confirmed in batch.confirmed():
                self._ledger.report(self._ledger.to_report(confirmed))
                yield from confirmed
            if (receipt := batch.awaited(all_of_them=all_of_them)) is None:
                return
            receipt.result()
