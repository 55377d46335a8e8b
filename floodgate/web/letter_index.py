"""The dead letters that the pages show, read once for all viewers.

RabbitMQ can only be asked for a queue's letters one by one, from the first, which takes some 0.2 ms each. So the
letters are read in the background when somebody looks, kept in memory, and read again when their number changes. A page
shows what has been read so far, and says how old it is.

Readings and actions run on one thread, one after the other, since a letter that is being read is hidden from other
readers. An action ends a reading.

Bounds: at most :data:`MOST_LETTERS` letters are kept, with at most :data:`MOST_BYTES` of bodies; further letters are
counted and not shown. Nothing is read while nobody looks.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar

from floodgate.broker.amqp.connections import Connections
from floodgate.broker.amqp.queue_reader import QueueReader
from floodgate.broker.errors import FloodgateError, RabbitMQError
from floodgate.broker.messages.dead_letters import DeadLetter, in_order_of_death
from floodgate.broker.settings.model import Settings
from floodgate.letters import reading
from floodgate.letters.criteria import Criteria
from floodgate.letters.reading import Looked
from floodgate.web.service_threads import ServiceThreads

MOST_LETTERS: Final = 20_000
MOST_BYTES: Final = 64 * 1024 * 1024
# The numbers of letters are compared this often, and the letters read again even if the numbers are the same.
FRESH: Final = timedelta(seconds=5)
STALE: Final = timedelta(minutes=2)
# How long a page waits for a reading; few letters are read in that time.
PAGE_SECONDS: Final = 0.15

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class KnownLetters:
    """The dead letters as far as they have been read."""

    letters: Sequence[DeadLetter] = ()
    """The oldest first."""
    waiting: int = 0
    """All letters in the queues, shown or not."""
    read_at: datetime | None = None
    """When the reading began; no letter here is later. None before the first."""
    is_complete: bool = False
    """Whether all letters are here that are within the bounds."""
    problem: str | None = None

    @property
    def left_out(self) -> int:
        """Letters beyond the bounds."""
        return max(0, self.waiting - len(self.letters)) if self.is_complete else 0

    def matching(self, criteria: Criteria) -> Sequence[DeadLetter]:
        """Return the letters that meet the criteria."""
        return [letter for letter in self.letters if criteria.match(letter)]


class LetterIndex:
    """See the module. Belongs to the event loop, except what is said to run on the thread."""

    def __init__(self, settings: Settings, connections: Connections) -> None:
        self._queues = reading.queues(settings, None)
        self._connections = connections
        self._thread = ServiceThreads("RabbitMQ", RabbitMQError, threads=1)
        self._known = KnownLetters()  # replaced as a whole, by the thread
        self._depths: dict[str, int] = {}  # when they were read; the thread's
        self._checked_at = float("-inf")  # monotonic
        self._read_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None
        self._interrupted = threading.Event()
        self._closed = False

    async def look(self) -> KnownLetters:
        """Return the letters that are known, and have them read if that is due. Waits for :data:`PAGE_SECONDS`."""
        if self._reading is None and time.monotonic() - self._checked_at > FRESH.total_seconds():
            self._interrupted.clear()
            self._reading = asyncio.create_task(self._read(), name="dead letters")
        if self._reading is not None:
            await asyncio.wait({self._reading}, timeout=PAGE_SECONDS)
        return self._known

    async def act(self, work: Callable[[dict[str, int], Looked], T]) -> T:
        """Run an action on the thread. It gets the most letters to read from each queue, and a function to call with
        the number of letters read, which ends the action when the process stops. The queue's own count is not used: it
        lags behind when letters have just been returned.

        Raises:
            RabbitMQError: RabbitMQ cannot be reached, the connection was lost, or the process stops.
            StateUnavailableError: the action needs the store, and it does not answer.
        """
        self._interrupted.set()
        try:
            return await self._thread.call(work, dict.fromkeys(self._queues, MOST_LETTERS), self._go_on, seconds=None)
        finally:
            self._checked_at = self._read_at = float("-inf")

    async def close(self) -> None:
        """End the reading and the thread. Safe to call twice."""
        self._closed = True
        self._interrupted.set()
        await self._thread.stop()

    async def _read(self) -> None:
        try:
            await self._thread.call(self._refresh, seconds=None)
        except FloodgateError as error:
            self._known = replace(self._known, problem=str(error))
        finally:
            self._checked_at = time.monotonic()
            self._reading = None

    # On the thread.

    def _go_on(self, _letters: int) -> None:
        if self._closed:
            raise RabbitMQError("The process stopped before the action was complete. Take it again for the rest.")

    def _refresh(self) -> None:
        depths = reading.depths(self._connections, self._queues)
        age = time.monotonic() - self._read_at
        if depths == self._depths and age < STALE.total_seconds():
            self._known = replace(self._known, problem=None)
            return
        began, waiting = datetime.now(UTC), sum(depths.values())
        first = self._known.read_at is None
        letters: list[DeadLetter] = []
        held_bytes = 0
        for queue, depth in depths.items():
            with QueueReader(self._connections, queue) as reader:
                for page in reader.pages(reading.PAGE, min(depth, MOST_LETTERS - len(letters))):
                    letters += (_without_body(reading.read(queue, message)) for message in page)
                    held_bytes += sum(len(message.body) for message in page)
                    if self._interrupted.is_set():
                        return
                    if first:  # afterwards, the letters that are known are better than few of the new ones
                        self._known = KnownLetters(tuple(letters), waiting, began)
                    if held_bytes > MOST_BYTES:
                        break
        self._known = KnownLetters(in_order_of_death(letters), waiting, began, is_complete=True)
        self._depths, self._read_at = depths, time.monotonic()


def _without_body(letter: DeadLetter) -> DeadLetter:
    """Drop the body of a job or an update, which says the same."""
    return replace(letter, body=b"") if letter.job or letter.update else letter


def counts_of(letters: Sequence[DeadLetter]) -> Counter[str]:
    """Count letters by reason."""
    return Counter(letter.reason for letter in letters)
