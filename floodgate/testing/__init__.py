"""Test doubles for programs that send: clients that validate and record jobs instead of enqueueing them.

    from floodgate.testing import RecordingClient

They create the same jobs and raise the same errors as :class:`~floodgate.producer.client.Client`, and need no RabbitMQ.
Pytest fixtures are in :mod:`floodgate.testing.fixtures`; docs/testing.md shows both.
"""

from __future__ import annotations

import hashlib
import itertools
import tempfile
from collections.abc import AsyncIterable, AsyncIterator, Coroutine, Iterable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self, Unpack

from pydantic import SecretStr

from floodgate.broker.admission.contract import CANCELLED, Record, Standing
from floodgate.broker.errors import ClosedError, DeadLetteredError, DedupeKeyError, InvalidParamsError, NotSettledError
from floodgate.broker.messages.job import Job
from floodgate.broker.messages.spooled_file import SpooledFile
from floodgate.broker.settings.model import DEFAULT_BOT, Settings
from floodgate.broker.uploads.spool import PIECE_BYTES
from floodgate.producer.bot_api import BotApi, ChatId
from floodgate.producer.campaigns import campaigns_of
from floodgate.producer.core import Composer, as_job
from floodgate.producer.streaming.message import AsyncMessageStream, MessageStream
from floodgate.producer.streaming.options import StreamOptions, stream_request
from floodgate.producer.uploads import Attachment
from floodgate.testing.streams import Immediately, RecordedStream

if TYPE_CHECKING:
    from floodgate.producer.campaigns.operations.async_service import AsyncCampaigns
    from floodgate.producer.campaigns.operations.service import Campaigns

__all__ = ["AsyncRecordingClient", "Book", "RecordingClient"]


class Book:
    """The recorded jobs and their simulated outcomes. Use it from one thread.

    Attributes:
        jobs: Every job in the order of enqueueing; of several with one dedupe key, the first. Its ``files`` have the
            name, size and SHA-256 digest of each upload.
    """

    def __init__(self, bot: str = DEFAULT_BOT, partitions: int = 16) -> None:
        self.jobs: list[Job] = []
        # Built without load_settings: neither the environment nor a .env may influence a test.
        self._settings = Settings.model_construct(partitions=partitions, bots={}, bot_token=None)
        self._composer = Composer(self._settings, bot)
        self._ids: dict[str, Record] = {}
        self._contents: dict[str, str | None] = {}
        self._results: dict[str, Record] = {}
        self._message_ids = itertools.count(1)
        self._closed = False
        self._folder: tempfile.TemporaryDirectory[str] | None = None  # of the campaigns' database

    def calls(self, method: str | None = None) -> list[dict[str, Any]]:
        """Return the parameters of all calls, or of those of one method."""
        return [job.params for job in self.jobs if method is None or job.method == method]

    @property
    def texts(self) -> list[str]:
        """The texts and captions of all calls, in order."""
        said = (job.params.get("text", job.params.get("caption")) for job in self.jobs)
        return [text for text in said if text is not None]

    def will_return(self, method: str, result: Any) -> None:
        """Make later jobs of a method succeed with this result."""
        self._results[method] = Record(Standing.SENT, result=result)

    def will_fail(self, method: str, reason: str, error: dict[str, Any] | None = None) -> None:
        """Make later jobs of a method fail with a dead letter's reason, such as ``chat-unreachable``."""
        self._results[method] = Record(Standing.DEAD, reason=reason, error=error)

    def will_wait(self, method: str) -> None:
        """Make later jobs of a method wait for ever."""
        self._results[method] = Record(Standing.WAITING)

    def clear(self) -> None:
        """Forget all jobs. The outcomes set for later jobs stay."""
        self.jobs.clear()
        self._ids.clear()

    def _new_campaigns(self) -> Campaigns:
        self._folder = tempfile.TemporaryDirectory(prefix="floodgate-testing-")
        url = SecretStr(f"sqlite:///{self._folder.name}/campaigns.db")
        return campaigns_of(self._settings.model_copy(update={"campaigns_url": url}), self._composer.bot)

    def _stream(self, chat_id: ChatId, options: StreamOptions) -> AsyncMessageStream:
        request = stream_request(chat_id, options, self._composer.bot)
        return AsyncMessageStream(request, lambda it: RecordedStream(it, self._composer, self._take, self._result))

    def _job(self, method: str, given: dict[str, Any]) -> Job:
        return self._composer.job(method, given)

    def _call(self, method: str, given: dict[str, Any]) -> Job:
        job, attachments = self._composer.call(method, given)
        files = tuple(_recorded(number, attachment) for number, attachment in enumerate(attachments))
        return self._take(job.model_copy(update={"files": files}))

    def _take(self, job: Job) -> Job:
        if self._closed:
            raise ClosedError("The client is closed. Make another, or close it later.")
        self._composer.publication(as_job(job))  # raises the errors of a real client
        if job.dedupe_key is not None:
            if self._contents.setdefault(job.id, job.content) != job.content:
                raise DedupeKeyError(f"The dedupe key {job.dedupe_key!r} was used before for something else.")
            record = self._ids.get(job.id)
            died = record.reason if record is not None and record.standing is Standing.DEAD else None
            job = job.model_copy(update={"known": record is not None, "died": died})
        if job.id not in self._ids:
            self.jobs.append(job)
            self._ids[job.id] = self._results.get(job.method) or Record(Standing.SENT, result=self._message(job))
        return job

    def _message(self, job: Job) -> dict[str, Any]:
        chat = {"id": job.params.get("chat_id"), "type": "private"}
        text = {"text": job.params["text"]} if "text" in job.params else {}
        return {"message_id": next(self._message_ids), "date": job.created_ms // 1000, "chat": chat, **text}

    def _look(self, job: Job | str) -> Record | None:
        return self._ids.get(job.id if isinstance(job, Job) else job)

    def _cancel(self, jobs: Sequence[Job | str], campaign: str | None, bot: str | None) -> list[Record]:
        if bool(jobs) == bool(campaign):
            raise InvalidParamsError("Say what to cancel: either jobs, or a campaign.")
        whose = (bot or self._composer.bot, campaign)
        of_campaign = [job.id for job in self.jobs if campaign and (job.bot, job.campaign) == whose]
        ids = [job.id if isinstance(job, Job) else job for job in jobs]
        for job_id in (*ids, *of_campaign):
            record = self._ids.get(job_id)
            if record is None or record.standing is Standing.WAITING:
                self._ids[job_id] = Record(Standing.DEAD, reason=CANCELLED)
        return [self._ids[job_id] for job_id in ids]

    def _result(self, job: Job | str) -> Any:
        job_id, record = job.id if isinstance(job, Job) else job, self._look(job)
        if record is None:
            raise NotSettledError(f"This client has no job {job_id!r}: it was not enqueued.")
        if record.standing is Standing.WAITING:
            raise NotSettledError(f"Job {job_id} has not ended. It is safe; ask again later.")
        if record.standing is Standing.DEAD:
            raise DeadLetteredError(job_id, record.reason or "unknown", record.error)
        return record.result


class RecordingClient(Book, BotApi[Job]):
    """A replacement for :class:`~floodgate.producer.client.Client`: the same methods and errors, but sends nothing."""

    @cached_property
    def campaigns(self) -> Campaigns:
        """Real campaigns in a temporary database; nothing sends them."""
        return self._new_campaigns()

    def job(self, method: str, /, **given: Any) -> Job:
        """Create a job without recording it."""
        return self._job(method, given)

    def call(self, method: str, /, **given: Any) -> Job:
        """Record a job for any method, after validating its parameters."""
        return self._call(method, given)

    def enqueue(self, job: Job) -> Job:
        """Record a job."""
        return self._take(job)

    def enqueue_many(self, jobs: Iterable[Job]) -> int:
        """Record jobs; return how many."""
        return sum(1 for _ in self.enqueue_each(jobs))

    def enqueue_each(self, jobs: Iterable[Job]) -> Iterator[Job]:
        """Record jobs, yielding each."""
        for job in jobs:
            yield self._take(job)

    def stream(self, chat_id: ChatId, **options: Unpack[StreamOptions]) -> MessageStream:
        """Return a stream that is recorded, when it ends, as the messages that show its final text."""
        return MessageStream(self._stream(chat_id, options), Immediately())

    def status(self, job: Job | str) -> Record | None:
        """Return a job's simulated standing; None if the job is unknown."""
        return self._look(job)

    def cancel(self, *jobs: Job | str, campaign: str | None = None, bot: str | None = None) -> list[Record]:
        """Cancel jobs that were set to wait."""
        return self._cancel(jobs, campaign, bot)

    def result(self, job: Job | str, *, timeout: Any = 30) -> Any:
        """Return a job's simulated result, without waiting.

        Raises:
            NotSettledError: The job is unknown or was set to wait.
            DeadLetteredError: The job was set to fail.
        """
        return self._result(job)

    def close(self) -> None:
        """Close the client; later jobs raise ``ClosedError``."""
        self._closed = True
        if self._folder is not None:
            self.campaigns.close()
            self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_raised: object) -> None:
        self.close()


class AsyncRecordingClient(Book, BotApi[Coroutine[Any, Any, Job]]):
    """A replacement for :class:`~floodgate.producer.async_client.AsyncClient`."""

    @cached_property
    def campaigns(self) -> AsyncCampaigns:
        """Real campaigns in a temporary database; nothing sends them."""
        campaigns = self._new_campaigns()
        from floodgate.producer.campaigns.operations.async_service import AsyncCampaigns

        return AsyncCampaigns(campaigns)

    def job(self, method: str, /, **given: Any) -> Job:
        """Create a job without recording it."""
        return self._job(method, given)

    async def call(self, method: str, /, **given: Any) -> Job:
        """Record a job for any method, after validating its parameters."""
        return self._call(method, given)

    async def enqueue(self, job: Job) -> Job:
        """Record a job."""
        return self._take(job)

    async def enqueue_many(self, jobs: Iterable[Job] | AsyncIterable[Job]) -> int:
        """Record jobs; return how many."""
        count = 0
        async for _ in self.enqueue_each(jobs):
            count += 1
        return count

    async def enqueue_each(self, jobs: Iterable[Job] | AsyncIterable[Job]) -> AsyncIterator[Job]:
        """Record jobs, yielding each."""
        if isinstance(jobs, AsyncIterable):
            async for job in jobs:
                yield self._take(job)
        else:
            for job in jobs:
                yield self._take(job)

    def stream(self, chat_id: ChatId, **options: Unpack[StreamOptions]) -> AsyncMessageStream:
        """Return a stream that is recorded, when it ends, as the messages that show its final text."""
        return self._stream(chat_id, options)

    async def status(self, job: Job | str) -> Record | None:
        """Return a job's simulated standing; None if the job is unknown."""
        return self._look(job)

    async def cancel(self, *jobs: Job | str, campaign: str | None = None, bot: str | None = None) -> list[Record]:
        """Cancel jobs that were set to wait."""
        return self._cancel(jobs, campaign, bot)

    async def result(self, job: Job | str, *, timeout: Any = 30) -> Any:
        """Return a job's simulated result, without waiting.

        Raises:
            NotSettledError: The job is unknown or was set to wait.
            DeadLetteredError: The job was set to fail.
        """
        return self._result(job)

    async def close(self) -> None:
        """Close the client; later jobs raise ``ClosedError``."""
        self._closed = True
        if self._folder is not None:
            await self.campaigns.close()
            self._folder.cleanup()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_raised: object) -> None:
        await self.close()


def _recorded(number: int, attachment: Attachment) -> SpooledFile:
    """Describe a file as a spool would, by reading but not storing it."""
    digest, size = hashlib.sha256(), 0
    with attachment.opened() as source:
        while piece := source.read(PIECE_BYTES):
            digest.update(piece)
            size += len(piece)
    attachment.check_size(size)
    key = f"recorded/{number}"
    return SpooledFile(
        name=attachment.name, key=key, filename=attachment.filename, size=size, sha256=digest.hexdigest()
    )
