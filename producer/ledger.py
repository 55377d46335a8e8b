"""What became of a job: asked of the ledger in the state store that the workers keep.

A producer needs the store for this alone, and may do without: enqueueing asks it about jobs with a dedupe key only, to
tell the caller of a hit, and goes on if it does not answer. It must be the workers' own: the same file on the same
machine, or the same Redis.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final

from floodgate.broker.admission.contract import Admission, Record, Standing
from floodgate.broker.admission.result_feed import ResultFeed
from floodgate.broker.errors import DeadLetteredError, DedupeKeyError, NotSettledError, StateError
from floodgate.broker.messages.job import Job
from floodgate.broker.settings.model import Settings
from floodgate.broker.state.stores import open_result_feed, open_store, state_file
from floodgate.producer.waiting import JobKey, Waiter, Waiting

logger = logging.getLogger("floodgate.client")

# A store that did not answer costs its time-out; who enqueues shall not pay it for each job.
SILENCE_SECONDS: Final = 60.0


class Ledger:
    """Reads the ledger; opens the store at the first look. Any thread may use it; ``close`` may be called twice.

    Parameters:
        make_book: makes the book of who waits, of a store and a way to listen.
    """

    def __init__(self, settings: Settings, bot: str, make_book: Callable[..., Waiting] = Waiting) -> None:
        self._settings = settings
        self._make_book = make_book
        self._bot = bot
        self._silent_until = 0.0  # monotonic; any thread, and whose value is kept does not matter
        # At most one. A dict for its atomic setdefault: of two threads that come first at once, both get the same.
        self._stores: dict[str, Admission] = {}
        self._waiting: dict[int, Waiting] = {}  # by process id: a fork inherits no thread

    def look(self, job: Job | str) -> Record | None:
        """What the ledger says of a job, or of an id of the client's own bot.

        Raises:
            StateUnavailableError: the store cannot answer.
        """
        return self._store().lookup(*self._key(job))

    @contextmanager
    def awaited(self, job: Job | str, future: Waiter) -> Iterator[None]:
        """Lets the future have the record of a job that ends meanwhile. One that has ended before is to be looked up.

        Raises:
            ClosedError: the client was closed.
        """
        key, waiting = self._key(job), self.book()
        waiting.enter(key, future)
        try:
            yield
        finally:
            waiting.leave(key, future)

    def book(self) -> Waiting:
        """Who waits, in this process."""
        mine = self._waiting.get(os.getpid())
        return mine or self._waiting.setdefault(os.getpid(), self._make_book(self._store(), self._listener))

    def recognised(self, job: Job) -> Job:
        """The job, and if it has a dedupe key, whether the ledger knows one under it (``job.known``, ``job.died``). A
        store that is away is no error: then it is not told, and the store is left alone for a while.

        Raises:
            DedupeKeyError: the one that the ledger knows sends something else.
        """
        if job.dedupe_key is None or time.monotonic() < self._silent_until or not self._is_there():
            return job
        try:
            found = self.look(job)
        except StateError as error:
            self._silent_until = time.monotonic() + SILENCE_SECONDS
            logger.info("whether a dedupe key hits cannot be told for now; jobs are accepted all the same: %s", error)
            return job
        check_content(job, found)
        died = found.reason if found is not None and found.standing is Standing.DEAD else None
        return job.model_copy(update={"known": found is not None, "died": died})

    def begin_close(self) -> None:
        """Let nobody wait any more. Does not block."""
        if waiting := self._waiting.get(os.getpid()):
            waiting.begin_stop()

    def close(self) -> None:
        while self._waiting:
            process, waiting = self._waiting.popitem()
            if process == os.getpid():
                waiting.stop()
        while self._stores:
            self._stores.popitem()[1].close()

    def _key(self, job: Job | str) -> JobKey:
        return (job.bot, job.id) if isinstance(job, Job) else (self._bot, job)

    def _store(self) -> Admission:
        # A store holds nothing open before its first answer, so one too many is simply dropped.
        return self._stores.get("") or self._stores.setdefault("", open_store(self._settings))

    def _listener(self, bots: Sequence[str]) -> ResultFeed:
        return open_result_feed(self._settings, bots)

    def _is_there(self) -> bool:
        """A file is made by workers, and asking would make it."""
        path = state_file(self._settings)
        return path is None or path.exists()


def check_content(job: Job, found: Record | None) -> None:
    """Compare a job with what the ledger has under its dedupe key.

    Raises:
        DedupeKeyError: it is something else.
    """
    if found is not None and found.content is not None and found.content != job.content:
        raise DedupeKeyError(
            f"The dedupe key {job.dedupe_key!r} was used before for another method, chat or content, and is "
            f"{found.standing}. Nothing was queued: use a key of its own for each message."
        )


def result_of(job: Job | str, record: Record | None) -> Any:
    """Telegram's own result of a job that was sent; None if it is no longer kept (FLOODGATE_RESULT_SECONDS), for
    Telegram's own are never null.

    Raises:
        DeadLetteredError: it will not be sent.
        NotSettledError: it has not ended.
    """
    job_id = job.id if isinstance(job, Job) else job
    if record is None:
        raise NotSettledError(
            f"Job {job_id} has not come to its turn. It is safe; ask again, and see that a worker runs and shares "
            "this FLOODGATE_STATE_URL."
        )
    match record.standing:
        case Standing.SENT:
            return record.result
        case Standing.DEAD:
            raise DeadLetteredError(job_id, record.reason or "unknown", record.error)
        case Standing.WAITING | Standing.SENDING:
            raise NotSettledError(f"Job {job_id} is {record.standing} and has not ended. It is safe; ask again.")


def seconds_of(timeout: timedelta | float) -> float:
    """A caller's time-out in seconds."""
    return timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
