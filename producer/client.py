"""The client for programs that wait: scripts, Django, Flask, Celery tasks, threads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, wait
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

from floodgate.broker.admission.contract import Record
from floodgate.broker.amqp.connections import Connections
from floodgate.broker.errors import ConfirmTimeoutError, FloodgateError, RabbitMQError, UnroutableError
from floodgate.broker.messages.job import Job
from floodgate.broker.messages.publication import Publication
from floodgate.broker.settings.model import Settings, load_settings
from floodgate.producer.bot_api import BotApi
from floodgate.producer.core import Composer, as_job
from floodgate.producer.enqueue_batch import EnqueueBatch
from floodgate.producer.ledger import Ledger, result_of, seconds_of
from floodgate.producer.queue_declarer import QueueDeclarer
from floodgate.producer.uploads import Attachment, UploadStore
from floodgate.producer.waiting import ended


class Client(BotApi[Job]):
    """Enqueues Bot API calls. Any thread may use it, and so may processes forked from the one that made it.

    The connection opens at the first job and is kept. The program may end without ``close``: what returned is safe.

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
        self._ledger = Ledger(settings, self._composer.bot)
        self._upload_store = UploadStore(settings.spool_url)
        self._declarer = QueueDeclarer(
            self._composer,
            connections or Connections(settings, "client", patience_seconds=settings.publish_patience_seconds),
            owned=connections is None,
        )

    def job(self, method: str, /, **given: Any) -> Job:
        """A job, not enqueued. ``given`` are the method's parameters and :class:`~floodgate.producer.core.JobOptions`.

        Raises:
            JobError: the method, the bot, a parameter or an option is wrong.
        """
        return self._composer.job(method, given)

    def call(self, method: str, /, **given: Any) -> Job:
        """Enqueue a call of any Bot API method; returns the job when RabbitMQ has it on disk.

        Raises:
            JobError: the method, the bot, a parameter, a file or an option is wrong. Nothing was queued.
            SpoolError: a file cannot be kept. Nothing was queued.
            RabbitMQError: as in :meth:`enqueue`.
        """
        job, attachments = self._composer.call(method, given)
        return self._upload(job, attachments) if attachments else self.enqueue(job)

    def enqueue(self, job: Job) -> Job:
        """Put a job in; returns it when RabbitMQ has it on disk. The same job put in twice is sent once.

        Of a job with a ``dedupe_key`` the returned one says in ``known`` whether the ledger knew it before, if a state
        store can be asked, and in ``died`` why that one is a dead letter, which it stays. One that no worker has come
        to yet is in no ledger: it is sent once all the same.

        Raises:
            DedupeKeyError: the ledger knows its key for something else. Nothing was queued.
            RabbitMQUnreachableError: no configured address answered in time.
            PublishError: RabbitMQ did not take the job; its leaves say why, and what is known.
        """
        publication = self._publication(job)
        job = self._ledger.recognised(job)
        try:
            self._declarer.publisher.publish(publication)
        except UnroutableError:
            # Its queue was deleted under a process that had declared it. Nothing was accepted, so nothing is doubled.
            self._declarer.forget(job.bot)
            self._declarer.open(job.bot)
            self._declarer.publisher.publish(publication)
        return job

    def enqueue_many(self, jobs: Iterable[Job]) -> int:
        """Put in all jobs of an iterable of any length, in its order, in constant memory; returns how many.

        Raises:
            EnqueueManyError: it ended in the middle. Says how many are safe and which of those taken are not.
        """
        return sum(1 for _ in self.enqueue_each(jobs))

    def enqueue_each(self, jobs: Iterable[Job]) -> Iterator[Job]:
        """As :meth:`enqueue_many`, but yields each job once it is safe, in order.

        Jobs are taken ahead of those yielded, up to the publish window; leaving the loop early leaves them accepted.

        Raises:
            EnqueueManyError: it ended in the middle.
        """
        batch = EnqueueBatch(self._window, self._declarer)
        try:
            for job in jobs:
                publication = self._publication(job)
                if batch.add(self._ledger.recognised(job), publication):
                    self._submit(batch)
                    yield from _confirmed(batch)
                if batch.fault:
                    break
        except Exception as error:
            self._submit(batch)
            yield from _confirmed(batch, all_of_them=True)
            raise batch.error(error) from error
        self._submit(batch)
        yield from _confirmed(batch, all_of_them=True)
        if batch.fault:
            raise batch.error(batch.fault) from batch.fault

    def status(self, job: Job | str) -> Record | None:
        """Where a job stands: waiting, sending, sent or dead; None when no worker has come to it yet, or it is so
        long ago that it is forgotten. An id is looked for among the jobs of the client's own bot.

        Raises:
            StateUnavailableError: the state store cannot answer.
        """
        return self._ledger.look(job)

    def result(self, job: Job | str, *, timeout: timedelta | float = 30) -> Any:
        """Telegram's own result, as JSON values. Waits for it up to ``timeout``; a number is seconds.

        Any number of threads may wait at once: one listener hears for all of them.

        Raises:
            DeadLetteredError: the job will not be sent; says why.
            NotSettledError: it has not ended in time. It is safe.
            StateUnavailableError: the state store cannot answer.
            ClosedError: the client was closed meanwhile.
        """
        record = self.status(job)
        if not ended(record) and seconds_of(timeout) > 0:
            record = self._awaited(job, seconds_of(timeout))
        return result_of(job, record)

    def close(self) -> None:
        """Release the connection. Safe to call twice, and unused."""
        self._declarer.close()
        self._ledger.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _upload(self, job: Job, attachments: Sequence[Attachment]) -> Job:
        """Enqueue a job with files. One whose key the ledger knows is on its way, or was: it gets none anew."""
        if (job := self._ledger.recognised(job)).known:
            return job
        job = self._upload_store.keep(job, attachments)
        try:
            return self.enqueue(job)
        except ConfirmTimeoutError:
            raise  # it may be there, and then it needs them
        except FloodgateError:
            self._upload_store.discard(job, job.files)
            raise

    def _awaited(self, job: Job | str, seconds: float) -> Record | None:
        future: Future[Record] = Future()
        with self._ledger.awaited(job, future):
            if ended(record := self.status(job)):  # it ended in the moment before
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


def _confirmed(batch: EnqueueBatch, *, all_of_them: bool = False) -> Iterator[Job]:
    """The confirmed jobs. Waits while no other batch may be submitted, or for all, within the publisher's bounds."""
    yield from batch.confirmed()
    while receipt := batch.awaited(all_of_them=all_of_them):
        receipt.result()
        yield from batch.confirmed()
