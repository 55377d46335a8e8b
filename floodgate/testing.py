"""For your own tests: clients that check every call as the real ones do, and keep the job instead of publishing it.

    client = RecordingClient()
    greet(client)
    assert [job.params["text"] for job in client.sent_to(42)] == ["hi"]

No RabbitMQ, no environment, no thread. With pytest, ``floodgate.pytest_plugin`` has a fixture.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Iterable, Iterator
from concurrent.futures import Future
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

from broker.admission.contract import Record, Standing
from broker.chats import chat_key
from broker.errors import ClosedError, FloodgateError
from broker.job import Job
from broker.methods import CHARGES, Charge
from broker.settings import DEFAULT_BOT, Settings
from producer.bot_api import BotApi
from producer.core import Composer, as_job
from producer.flight import Flight, Outcomes
from producer.ledger import result_of

__all__ = ["AsyncRecordingClient", "RecordingClient"]


class RecordingClient(BotApi[Job]):
    """Stands in for :class:`floodgate.Client`: all of its methods, and ``jobs``, what was enqueued, in order.

    Every job counts as sent at once. Its result looks like Telegram's: a message with the next ``message_id`` for what
    makes a message, else True; :meth:`answer_with` gives another.

    Parameters:
        settings: None gives the defaults, whatever the environment says; then any bot's name is accepted.
        bot: the bot that sends, where a job does not say.
        connections: not used.
    """

    def __init__(self, settings: Settings | None = None, *, bot: str = DEFAULT_BOT, connections: object = None) -> None:
        self.jobs: list[Job] = []
        self._composer = Composer(settings or Settings.model_construct(), bot)
        self._records: dict[str, Record] = {}
        self._fault: FloodgateError | None = None
        self._answer: Callable[[Job], Any] = self._telegram_like
        self._closed = False

    def sent_to(self, chat_id: int | str) -> list[Job]:
        """The jobs for one chat, in order."""
        return [job for job in self.jobs if job.chat == chat_key(chat_id)]

    def fail_with(self, fault: FloodgateError | None) -> None:
        """From now on enqueueing raises this, as it does while RabbitMQ is away; None makes all well again."""
        self._fault = fault

    def answer_with(self, answer: Callable[[Job], Any]) -> None:
        """What ``result`` gives for jobs enqueued from now on. A :class:`Record` says how a job ended otherwise."""
        self._answer = answer

    def job(self, method: str, /, **given: Any) -> Job:
        return self._composer.job(method, given)

    def call(self, method: str, /, **given: Any) -> Job:
        return self.enqueue(self.job(method, **given))

    def enqueue(self, job: Job) -> Job:
        self._composer.publication(as_job(job))
        if self._closed:
            raise ClosedError("The client is closed. Make another, or close it later.")
        if self._fault is not None:
            raise self._fault
        job = self._recognised(job)
        self.jobs.append(job)
        answer = self._answer(job)
        self._records[job.id] = answer if isinstance(answer, Record) else Record(Standing.SENT, answer)
        return job

    def enqueue_many(self, jobs: Iterable[Job]) -> int:
        return sum(1 for _ in self.enqueue_each(jobs))

    def enqueue_each(self, jobs: Iterable[Job]) -> Iterator[Job]:
        flight = Flight(window=1)
        try:
            for job in jobs:
                publication = self._composer.publication(as_job(job))
                flight.board(self._recognised(job), publication)
                self.enqueue(job)
                flight.leave(_accepted())
                yield from flight.landed()
        except Exception as error:
            flight.cancel(error)
            raise flight.error(error) from error

    def status(self, job: Job | str) -> Record | None:
        return self._records.get(job if isinstance(job, str) else job.id)

    def result(self, job: Job | str, *, timeout: timedelta | float = 30) -> Any:
        return result_of(job, self.status(job))

    def close(self) -> None:
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _recognised(self, job: Job) -> Job:
        return job if job.dedupe_key is None else job.model_copy(update={"known": job.id in self._records})

    def _telegram_like(self, job: Job) -> Any:
        if CHARGES[job.method] is not Charge.MESSAGE:
            return True
        chat = {"id": int(job.chat)} if job.chat and job.chat.lstrip("-").isdecimal() else {"username": job.chat}
        return {"message_id": len(self.jobs), "date": job.created_ms // 1000, "chat": chat, **_echo(job)}


class AsyncRecordingClient(BotApi[Coroutine[Any, Any, Job]]):
    """:class:`RecordingClient` in place of :class:`floodgate.AsyncClient`; ``recorded`` has the knobs."""

    def __init__(self, settings: Settings | None = None, *, bot: str = DEFAULT_BOT, connections: object = None) -> None:
        self.recorded = RecordingClient(settings, bot=bot)

    @property
    def jobs(self) -> list[Job]:
        return self.recorded.jobs

    def job(self, method: str, /, **given: Any) -> Job:
        return self.recorded.job(method, **given)

    async def call(self, method: str, /, **given: Any) -> Job:
        return self.recorded.call(method, **given)

    async def enqueue(self, job: Job) -> Job:
        return self.recorded.enqueue(job)

    async def enqueue_many(self, jobs: Iterable[Job] | AsyncIterable[Job]) -> int:
        return len([job async for job in self.enqueue_each(jobs)])

    async def enqueue_each(self, jobs: Iterable[Job] | AsyncIterable[Job]) -> AsyncIterator[Job]:
        gathered = [job async for job in jobs] if isinstance(jobs, AsyncIterable) else jobs
        for job in self.recorded.enqueue_each(gathered):
            yield job

    async def status(self, job: Job | str) -> Record | None:
        return self.recorded.status(job)

    async def result(self, job: Job | str, *, timeout: timedelta | float = 30) -> Any:
        return self.recorded.result(job)

    async def close(self) -> None:
        self.recorded.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.recorded.close()


def _accepted() -> Future[Outcomes]:
    future: Future[Outcomes] = Future()
    future.set_result((None,))
    return future


def _echo(job: Job) -> dict[str, Any]:
    return {name: job.params[name] for name in ("text", "caption") if name in job.params}
