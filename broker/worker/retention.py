"""Drops dead letters that have expired, and the oldest ones of a queue that holds too many.

    every minute         count each queue, and drop the oldest letters beyond FLOODGATE_DEAD_LETTERS__MOST
    every ten minutes    scan each queue from its head, and drop the letters that have expired

Every worker does both, since it may be the only one. Several at once do no harm: each drops only letters that it holds
itself, and letters held by other workers do not count towards the surplus.

A letter is first counted in the state store and then removed. A crash in between counts it twice; no letter is dropped
without being counted, and none while the store is unavailable.

RabbitMQ's own message TTL would be less code, but does not report what it dropped, and expires messages only at the
head of a quorum queue: one letter that is kept forever would keep all letters behind it. A scan skips up to
:data:`LOOKED` letters that are to be kept; letters behind more than that wait until those are gone. A scan ends at
letters too recent to have expired for any reason. Letters that a scan holds are hidden from other readers until it
ends; then they are back in their places.
"""

from __future__ import annotations

import itertools
import logging
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

from floodgate.broker.amqp import queue_admin
from floodgate.broker.amqp.async_queue_reader import FEW, AsyncQueueReader, QueuedMessage
from floodgate.broker.amqp.connections import Connections
from floodgate.broker.amqp.session import ChannelRefusedError, Session
from floodgate.broker.errors import FloodgateError
from floodgate.broker.messages import queue_names
from floodgate.broker.messages.dead_letters import REASONS, DeadLetter, read_dead_letter
from floodgate.broker.process.stopping import Stopping
from floodgate.broker.settings.model import Settings

logger = logging.getLogger("floodgate.dead_letters")

ROUND_SECONDS: Final = 60.0
LOOK_EVERY: Final = 10  # rounds
LOOKED: Final = 10_000  # letters to keep that a scan holds at once
# The worker is sending meanwhile: 16 letters take it a few milliseconds, and 16 per 50 ms are 320 a second.
PAUSE: Final = timedelta(milliseconds=50)
QUEUE_SECONDS: Final = 300.0  # per queue; RabbitMQ takes letters back after 30 minutes. The next sweep continues.
GIVING_BACK_SECONDS: Final = 60.0

NO_BOT: Final = "-"  # the owner of letters that belong to no configured bot; not a valid bot name
OTHER: Final = "other"  # any unknown reason: everybody who may publish can write one
_FORBIDDEN: Final = 403
_MAY_NOT: Final = (
    "This RabbitMQ account may not read dead letters, so they are never dropped. Give it the worker's rights from "
    "docs/security.md, or run `floodgate dead-letters sweep` regularly with the operator's account."
)

CountDropped = Callable[[str, str, int], Awaitable[None]]
"""Adds to a bot's count of letters dropped for a reason."""
Dropped = Counter[tuple[str, str]]
"""Numbers of dropped letters, by bot and reason."""


Letters = Sequence[tuple[QueuedMessage, DeadLetter]]


@dataclass(slots=True)
class QueueRetention:
    """The state of one queue's sweep. Letters that it holds are dropped, or given back at the end."""

    queue: str
    dropped: Dropped = field(default_factory=Counter)
    stayed: int = 0
    reader: AsyncQueueReader = field(init=False)


Step = Callable[[QueueRetention, Letters], Awaitable[bool]]
"""Processes the next few letters and returns whether to continue."""


class Retention:
    """Sweeps the dead-letter queues. Belongs to the event loop of the connections.

    Args:
        settings: name the bots, and say how long and how many letters are kept.
        connections: the process's connections to RabbitMQ.
        count: called with a bot, a reason and a number of letters before they are dropped.
        stopping: ends a sweep early.
        pause: the time between two batches of letters, which leaves the process free for its main work.
    """

    def __init__(
        self,
        settings: Settings,
        connections: Connections,
        count: CountDropped,
        stopping: Stopping,
        pause: timedelta = PAUSE,
    ) -> None:
        self._keeping = settings.dead_letters
        self._bots = frozenset(settings.tokens)
        self._connections = connections
        self._count = count
        self._stopping = stopping
        self._pause_seconds = pause.total_seconds()

    async def run(self) -> None:
        """Sweep about once a minute until the process stops."""
        for number in itertools.count(1):
            if await self._stopping.sleep(ROUND_SECONDS * random.uniform(0.5, 1.5)):
                return
            try:
                await self.sweep(look=number % LOOK_EVERY == 0)
            except FloodgateError as error:
                logger.warning("dead letters were not swept: %s", _explained(error))

    async def sweep(self, *, look: bool = True) -> Dropped:
        """Drop surplus letters and, with ``look``, expired ones; return how many of each.

        Raises:
            RabbitMQError: the sweep was interrupted; the next one continues.
            StateUnavailableError: likewise.
        """
        dropped: Dropped = Counter()
        depths = await queue_admin.adepth(self._connections, queue_names.dead_queues(self._bots))
        for queue, depth in depths.items():
            if depth and depth > self._keeping.most:
                dropped += await self._read_queue(
                    queue, self._drop_surplus, f"more than {self._keeping.most} in the queue"
                )
            if depth and look and self._keeping.shortest is not None:
                dropped += await self._read_queue(queue, self._drop_old, "expired")
        return dropped

    async def _read_queue(self, queue: str, step: Step, why: str) -> Dropped:
        hand = QueueRetention(queue)
        try:
            bound_seconds = QUEUE_SECONDS + GIVING_BACK_SECONDS
            await self._connections.arun(partial(self._go_through, hand, step), bound_seconds, repeatable=False)
        finally:
            if hand.dropped:
                logger.warning("dead letters dropped from %s, %s: %s", queue, why, _counted(hand.dropped))
        return hand.dropped

    async def _go_through(self, hand: QueueRetention, step: Step, session: Session) -> None:
        """Take a few letters at a time from the queue's head until a step returns False."""
        hand.reader = reader = AsyncQueueReader(await session.channel(), hand.queue)
        ends_at = time.monotonic() + QUEUE_SECONDS
        try:
            while time.monotonic() < ends_at and (few := await reader.take(FEW)):
                letters = [read_dead_letter(hand.queue, one.message_id, one.headers, one.body) for one in few]
                if not await step(hand, list(zip(few, letters, strict=True))):
                    break
                if await self._stopping.sleep(self._pause_seconds):
                    break
        finally:
            await reader.give_back()

    async def _drop_surplus(self, hand: QueueRetention, few: Letters) -> bool:
        # Letters that other workers hold do not count as ready, so two workers together never drop too many.
        surplus = await hand.reader.ready() + len(few) - self._keeping.most
        await self._drop(hand, few[: max(0, surplus)])
        return surplus > len(few)

    async def _drop_old(self, hand: QueueRetention, few: Letters) -> bool:
        now = datetime.now(UTC)
        old = [(message, letter) for message, letter in few if self._is_over(letter, now)]
        await self._drop(hand, old)
        hand.stayed += len(few) - len(old)
        return hand.stayed < LOOKED and not all(self._is_young(letter, now) for _, letter in few)

    async def _drop(self, hand: QueueRetention, letters: Letters) -> None:
        counts = Counter((self._owner(letter), _known(letter.reason)) for _, letter in letters)
        for (bot, reason), number in counts.items():
            await self._count(bot, reason, number)
        await hand.reader.remove([message for message, _ in letters])
        hand.dropped.update(counts)

    def _is_over(self, letter: DeadLetter, now: datetime) -> bool:
        kept = self._keeping.kept_for(letter.reason)
        return kept is not None and letter.died_at is not None and now - letter.died_at >= kept

    def _is_young(self, letter: DeadLetter, now: datetime) -> bool:
        shortest = self._keeping.shortest
        return shortest is None or (letter.died_at is not None and now - letter.died_at < shortest)

    def _owner(self, letter: DeadLetter) -> str:
        of = letter.job or letter.update
        return of.bot if of is not None and of.bot in self._bots else NO_BOT


def _known(reason: str) -> str:
    return reason if reason in REASONS else OTHER


def _counted(dropped: Dropped) -> str:
    """Format counts for the log, as in ``news content: 12, news rights: 3``."""
    return ", ".join(f"{bot} {reason}: {number}" for (bot, reason), number in dropped.most_common())


def _explained(error: FloodgateError) -> str:
    return _MAY_NOT if isinstance(error, ChannelRefusedError) and error.code == _FORBIDDEN else str(error)
