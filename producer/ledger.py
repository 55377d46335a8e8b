"""What became of a job: asked of the ledger in the state store that the workers keep.

A producer needs the store for this alone, and may do without: enqueueing asks it about jobs with a dedupe key only, to
tell the caller of a hit, and goes on if it does not answer. It must be the workers' own: the same file on the same
machine, or the same Redis.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Final

from broker.admission.contract import Admission, Record, Standing
from broker.admission.stores import open_store, state_file
from broker.errors import DeadLetteredError, NotSettledError, StateError
from broker.job import Job
from broker.settings import Settings

logger = logging.getLogger("floodgate.client")

# Between two looks. Telegram takes some 50 ms for a call, and who waits for longer need not know to the millisecond.
FIRST_PAUSE_SECONDS: Final = 0.02
LONGEST_PAUSE_SECONDS: Final = 0.5
# A store that did not answer costs its time-out; who enqueues shall not pay it for each job.
SILENCE_SECONDS: Final = 60.0


class Ledger:
    """Reads the ledger; opens the store at the first look. Any thread may use it; ``close`` may be called twice."""

    def __init__(self, settings: Settings, bot: str) -> None:
        self._settings = settings
        self._bot = bot
        self._silent_until = 0.0  # monotonic; any thread, and whose value is kept does not matter
        # At most one. A dict for its atomic setdefault: of two threads that come first at once, both get the same.
        self._stores: dict[str, Admission] = {}

    def look(self, job: Job | str) -> Record | None:
        """What the ledger says of a job, or of an id of the client's own bot.

        Raises:
            StateUnavailableError: the store cannot answer.
        """
        bot, job_id = (job.bot, job.id) if isinstance(job, Job) else (self._bot, job)
        return self._store().lookup(bot, job_id)

    def recognised(self, job: Job) -> Job:
        """The job, and if it has a dedupe key, whether the ledger knows one under it (``job.known``). Never raises for
        a store that is away: then it is not told, and the store is left alone for a while."""
        if job.dedupe_key is None or time.monotonic() < self._silent_until or not self._is_there():
            return job
        try:
            known = self.look(job) is not None
        except StateError as error:
            self._silent_until = time.monotonic() + SILENCE_SECONDS
            logger.info("whether a dedupe key hits cannot be told for now; jobs are accepted all the same: %s", error)
            return job
        return job.model_copy(update={"known": known})

    def close(self) -> None:
        while self._stores:
            self._stores.popitem()[1].close()

    def _store(self) -> Admission:
        # A store holds nothing open before its first answer, so one too many is simply dropped.
        return self._stores.get("") or self._stores.setdefault("", open_store(self._settings))

    def _is_there(self) -> bool:
        """A file is made by workers, and asking would make it."""
        path = state_file(self._settings)
        return path is None or path.exists()


def ended(record: Record | None) -> bool:
    """Whether there is an end to tell of."""
    return record is not None and record.standing in (Standing.SENT, Standing.DEAD)


def result_of(job: Job | str, record: Record | None) -> Any:
    """Telegram's own result of a job that was sent.

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
            raise DeadLetteredError(job_id, record.reason or "unknown")
        case Standing.WAITING | Standing.SENDING:
            raise NotSettledError(f"Job {job_id} is {record.standing} and has not ended. It is safe; ask again.")


def pauses(timeout: timedelta | float) -> Iterator[float]:
    """Seconds to pause between looks, growing, until ``timeout`` (a number is seconds) is over."""
    seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
    deadline, pause = time.monotonic() + seconds, FIRST_PAUSE_SECONDS
    while (left := deadline - time.monotonic()) > 0:
        yield min(pause, left)
        pause = min(pause * 1.5, LONGEST_PAUSE_SECONDS)
