"""What became of a job: asked of the ledger in the state store that the workers keep.

A producer needs the store for this alone; enqueueing does not touch it. It must be the workers' own: the same file on
the same machine, or the same Redis.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, Final

from broker.admission.contract import Admission, Record, Standing
from broker.errors import DeadLetteredError, NotSettledError
from broker.job import Job

# Between two looks. Telegram takes some 50 ms for a call, and who waits for longer need not know to the millisecond.
FIRST_PAUSE_SECONDS: Final = 0.02
LONGEST_PAUSE_SECONDS: Final = 0.5


class Ledger:
    """Reads the ledger; opens the store at the first look. Any thread may use it; ``close`` may be called twice."""

    def __init__(self, open_store: Callable[[], Admission], bot: str) -> None:
        self._open_store = open_store
        self._bot = bot
        # At most one. A dict for its atomic setdefault: of two threads that come first at once, both get the same.
        self._stores: dict[str, Admission] = {}

    def look(self, job: Job | str) -> Record | None:
        """What the ledger says of a job, or of an id of the client's own bot.

        Raises:
            StateUnavailableError: the store cannot answer.
        """
        bot, job_id = (job.bot, job.id) if isinstance(job, Job) else (self._bot, job)
        return self._store().lookup(bot, job_id)

    def close(self) -> None:
        while self._stores:
            self._stores.popitem()[1].close()

    def _store(self) -> Admission:
        # A store holds nothing open before its first answer, so one too many is simply dropped.
        return self._stores.get("") or self._stores.setdefault("", self._open_store())


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
