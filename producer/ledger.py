"""Looks up what became of a job, in the ledger that the workers keep in the state store.

This is what a producer needs the store for, and it can do without. Enqueueing looks up only jobs with a dedupe key, to
tell the caller of a duplicate, and reports only jobs with a coalescing key, so that those that still wait in RabbitMQ
are superseded; it goes on if the store does not answer. It must be the workers' own store: the same file on the same
machine, or the same Redis.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final

from floodgate.broker.admission.contract import Admission, Ask, Record, Standing
from floodgate.broker.admission.policy import ENQUEUED_MOST, ask_for, may_supersede_unseen
from floodgate.broker.admission.result_feed import ResultFeed
from floodgate.broker.errors import (
    DeadLetteredError,
    DedupeKeyError,
    InvalidParamsError,
    NotSettledError,
    StateError,
)
from floodgate.broker.messages.job import Job, stand_in, unix_ms
from floodgate.broker.settings.model import Settings
from floodgate.broker.state.stores import open_result_feed, open_store, state_file
from floodgate.producer.waiting import JobKey, Waiter, Waiting, ended

logger = logging.getLogger("floodgate.client")

# Each lookup in a store that does not answer takes a full time-out; enqueueing must not pay that for every job.
SILENCE_SECONDS: Final = 60.0


class Ledger:
    """Reads the ledger; opens the store at the first lookup. Any thread may use it; ``close`` may be called twice.

    Args:
        make_waiting: makes the record of waiting callers from a store and a function that opens a result feed.
    """

    def __init__(self, settings: Settings, bot: str, make_waiting: Callable[..., Waiting] = Waiting) -> None:
        self._settings = settings
        self._make_waiting = make_waiting
        self._bot = bot
        self._silent_until = 0.0  # monotonic; written by any thread, and the last value wins
        # At most one. A dict for its atomic setdefault: if two threads open the store at once, both get the same one.
        self._stores: dict[str, Admission] = {}
        self._waiting: dict[int, Waiting] = {}  # by process id: a fork inherits no thread

    def look(self, job: Job | str) -> Record | None:
        """Look up a job, or an id among the jobs of the client's own bot.

        Raises:
            StateUnavailableError: the store cannot answer.
        """
        return self._store().lookup(*self._key(job))

    def cancel(self, jobs: Sequence[Job | str], campaign: str | None, bot: str | None) -> list[Record]:
        """Cancel jobs and return their records, or cancel a campaign and return none.

        Raises:
            InvalidParamsError: neither a job nor a campaign is given, or both are, or an id is not one.
            StateUnavailableError: the store cannot answer.
        """
        if bool(jobs) == bool(campaign):
            raise InvalidParamsError("Say what to cancel: either jobs, or a campaign.")
        if campaign:
            # A job of this same millisecond was enqueued before.
            self._store().cancel_campaign(bot or self._bot, campaign, unix_ms() + 1)
        named = (job if isinstance(job, Job) else stand_in(bot or self._bot, job) for job in jobs)
        return [self._store().cancel(ask_for(job, self._settings)) for job in named]

    def withdraw(self, jobs: Sequence[Job]) -> list[Record]:
        """Cancel jobs that their producer replaces, without counting or listing them, and return their records.

        Raises:
            StateUnavailableError: the store cannot answer.
        """
        return [self._store().cancel(ask_for(job, self._settings), listed=False) for job in jobs]

    def look_awaited(self, job: Job | str) -> Record | None:
        """:meth:`look` up a job that a caller awaits. If it was superseded, the caller waits on for its successor.

        Raises:
            StateUnavailableError: the store cannot answer.
        """
        record = self.look(job)
        if record is None or record.chain is None or ended(record):
            return record
        self.waiting().follow(self._key(job), record.chain)
        return self.look(job)

    @contextmanager
    def awaited(self, job: Job | str, future: Waiter) -> Iterator[None]:
        """Resolve the future with the job's record if the job ends in this block. Look up whether it ended before.

        Raises:
            ClosedError: the client was closed.
        """
        key, waiting = self._key(job), self.waiting()
        waiting.enter(key, future)
        try:
            yield
        finally:
            waiting.leave(key, future)

    def waiting(self) -> Waiting:
        """The callers of this process that wait for results."""
        mine = self._waiting.get(os.getpid())
        return mine or self._waiting.setdefault(os.getpid(), self._make_waiting(self._store(), self._listener))

    def recognised(self, job: Job) -> Job:
        """Return the job; if it has a dedupe key, with ``known`` and ``died`` set from the ledger. If the store does
        not answer, the job is returned as it is, and the store is not asked again for :data:`SILENCE_SECONDS`.

        Raises:
            DedupeKeyError: the ledger's job under this key sends something else.
        """
        if job.dedupe_key is None or not self._is_asked():
            return job
        try:
            found = self.look(job)
        except StateError as error:
            self._fall_silent()
            logger.info("cannot check dedupe keys for now; jobs are accepted without the check: %s", error)
            return job
        check_content(job, found)
        died = found.reason if found is not None and found.standing is Standing.DEAD else None
        return job.model_copy(update={"known": found is not None, "died": died})

    def to_report(self, jobs: Iterable[Job]) -> list[Ask]:
        """The jobs to :meth:`report` once they are enqueued."""
        may_have_key = self._settings.coalesce_edits
        asks = ((job, ask_for(job, self._settings)) for job in jobs if may_have_key or job.coalesce is not None)
        return [ask for job, ask in asks if may_supersede_unseen(job, ask)]

    def report(self, asks: Sequence[Ask]) -> None:
        """Report jobs with a key that were just enqueued, in order: they supersede others that no worker has received.
        If the store does not answer, nothing is reported for :data:`SILENCE_SECONDS`."""
        if not asks or not self._is_asked():
            return
        try:
            for bot in dict.fromkeys(ask.bot for ask in asks):
                its = [ask for ask in asks if ask.bot == bot]
                for first in range(0, len(its), ENQUEUED_MOST):
                    self._store().enqueued(bot, its[first : first + ENQUEUED_MOST])
        except StateError as error:
            self._fall_silent()
            logger.info("cannot report jobs for now; more of those with a coalescing key are sent: %s", error)

    def begin_close(self) -> None:
        """Accept no more waiting callers. Does not block."""
        if waiting := self._waiting.get(os.getpid()):
            waiting.begin_stop()

    def close(self) -> None:
        """Stop listening for results and close the store. Safe to call twice."""
        while self._waiting:
            process, waiting = self._waiting.popitem()
            if process == os.getpid():
                waiting.stop()
        while self._stores:
            self._stores.popitem()[1].close()

    def _key(self, job: Job | str) -> JobKey:
        return (job.bot, job.id) if isinstance(job, Job) else (self._bot, job)

    def _store(self) -> Admission:
        # A store opens nothing before its first lookup, so a surplus one is simply dropped.
        return self._stores.get("") or self._stores.setdefault("", open_store(self._settings))

    def _listener(self, bots: Sequence[str]) -> ResultFeed:
        return open_result_feed(self._settings, bots)

    def _is_asked(self) -> bool:
        """Whether the store exists and has not been silent lately. Workers create the file; a lookup would create it,
        too."""
        path = state_file(self._settings)
        return time.monotonic() >= self._silent_until and (path is None or path.exists())

    def _fall_silent(self) -> None:
        self._silent_until = time.monotonic() + SILENCE_SECONDS


def check_content(job: Job, found: Record | None) -> None:
    """Compare a job with the ledger's record for its dedupe key.

    Raises:
        DedupeKeyError: the key was used for something else.
    """
    if found is not None and found.content is not None and found.content != job.content:
        raise DedupeKeyError(
            f"The dedupe key {job.dedupe_key!r} was already used for a job with another method, chat or content, which "
            f"is {found.standing}. Nothing was queued: use a different key for each message."
        )


def result_of(job: Job | str, record: Record | None) -> Any:
    """Return Telegram's own result for a sent job. None means that it is no longer kept (FLOODGATE_RESULT_SECONDS):
    Telegram never returns null.

    Raises:
        DeadLetteredError: the job will not be sent.
        NotSettledError: the job has not finished, or is unknown.
    """
    job_id = job.id if isinstance(job, Job) else job
    if record is None:
        raise NotSettledError(_unknown(job))
    match record.standing:
        case Standing.SENT:
            return record.result
        case Standing.DEAD:
            raise DeadLetteredError(job_id, record.reason or "unknown", record.error)
        case Standing.WAITING | Standing.SENDING:
            raise NotSettledError(f"Job {job_id} is still {record.standing}. It is safe; ask again.")


def _unknown(job: Job | str) -> str:
    if isinstance(job, Job):
        return (
            f"No worker has received job {job.id} yet. If it was enqueued, it is safe; ask again, and check that a "
            "worker is running with the same FLOODGATE_STATE_URL."
        )
    return (
        f"The ledger has no job {job[:64]!r} of the client's bot: no worker has received it yet, it ended longer ago "
        "than FLOODGATE_LEDGER_SECONDS, or the id, the bot or FLOODGATE_STATE_URL is wrong."
    )


def seconds_of(timeout: timedelta | float) -> float:
    """Convert a time-out to seconds."""
    return timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
