"""Drops dead letters that have been kept long enough, and the oldest if there are too many.

    every minute         count each queue, and drop the oldest letters beyond FLOODGATE_DEAD_LETTERS__MOST
    every ten minutes    scan each queue from its head, and drop the letters whose time is over

Every worker does both, since it may be the only one. Concurrent sweeps are harmless: each drops only letters that it
holds itself, and does not count those that others hold towards the maximum.

A letter is counted in the state store first, then removed. A crash in between counts it twice; no letter is dropped
without being counted, and none while the store is down.

RabbitMQ's own message TTL would be less code, but it does not report what it dropped, and it expires messages only at
the head of a quorum queue: a letter kept for ever would keep all letters behind it. A scan skips up to :data:`LOOKED`
such letters; a letter behind more of them is dropped once they are. A scan ends at letters too recent to expire,
whatever their reason. The letters that it holds are hidden from others until it ends; then they are back in their
places.
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
LOOKED: Final = 10_000  # letters that stay, held at once
# A worker keeps sending meanwhile: 16 letters take a few milliseconds, and 16 every 50 ms are 320 per second.
PAUSE: Final = timedelta(milliseconds=50)
QUEUE_SECONDS: Final = 300.0  # per queue; RabbitMQ takes letters back after 30 minutes. The next run continues.
GIVING_BACK_SECONDS: Final = 60.0

NO_BOT: Final = "-"  # for letters of no configured bot; not a valid name of a bot
OTHER: Final = "other"  # for unknown reasons: any publisher can write any reason
_FORBIDDEN: Final = 403
_MAY_NOT: Final = (
    "Dead letters are not swept: this RabbitMQ account may not read them. Give it the worker's permissions from "
    "docs/security.md, or run `floodgate dead-letters sweep` regularly with the operator's account."
)

CountDropped = Callable[[str, str, int], Awaitable[None]]
"""Adds to a bot's count of letters dropped for a reason."""
Dropped = Counter[tuple[str, str]]
"""Number of letters dropped, by bot and reason."""


Letters = Sequence[tuple[QueuedMessage, DeadLetter]]


@dataclass(slots=True)
class QueueRetention:
    """The sweep of one queue: the letters dropped, and the number of those that stay."""

    queue: str
    dropped: Dropped = field(default_factory=Counter)
    stayed: int = 0
    reader: AsyncQueueReader = field(init=False)


Step = Callable[[QueueRetention, Letters], Awaitable[bool]]
"""Handles the next few letters. Returns whether to continue."""


class Retention:
    """Sweeps dead letters. Belongs to the event loop of the connections.

    Args:
        count: counts letters before they are dropped.
        pause: pause between batches, for a process with more important work.
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
        """Sweep regularly until the process stops."""
        for number in itertools.count(1):
            if await self._stopping.sleep(ROUND_SECONDS * random.uniform(0.5, 1.5)):
                return
            try:
                await self.sweep(look=number % LOOK_EVERY == 0)
            except FloodgateError as error:
                logger.warning("dead letters were not swept: %s", _explained(error))

    async def sweep(self, *, look: bool = True) -> Dropped:
        """Drop letters beyond the maximum and, with ``look``, those whose time is over. Return how many were dropped.

        Raises:
            RabbitMQError, StateUnavailableError: the sweep stopped part-way; the next one continues.
        """
        dropped: Dropped = Counter()
        depths = await queue_admin.adepth(self._connections, queue_names.dead_queues(self._bots))
        for queue, depth in depths.items():
            if depth and depth > self._keeping.most:
                dropped += await self._read_queue(queue, self._drop_surplus, f"more than {self._keeping.most} there")
            if depth and look and self._keeping.shortest is not None:
                dropped += await self._read_queue(queue, self._drop_old, "kept for their time")
        return dropped

    async def _read_queue(self, queue: str, step: Step, why: str) -> Dropped:
        hand = QueueRetention(queue)
        try:
            await self._connections.arun(partial(self._go_through, hand, step), QUEUE_SECONDS + GIVING_BACK_SECONDS)
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
        # Letters that others hold are not ready, so concurrent sweeps never drop too many.
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
    """Format counts as in ``news content: 12, news rights: 3``."""
    return ", ".join(f"{bot} {reason}: {number}" for (bot, reason), number in dropped.most_common())


def _explained(error: FloodgateError) -> str:
    return _MAY_NOT if isinstance(error, ChannelRefusedError) and error.code == _FORBIDDEN else str(error)
