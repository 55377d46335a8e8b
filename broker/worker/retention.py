"""Dropping dead letters that have been kept long enough, and the oldest of too many.

    every minute         count each queue, and drop the oldest letters beyond FLOODGATE_DEAD_LETTERS__MOST
    every ten minutes    look through each queue from its head, and drop the letters whose time is over

Each worker does both, since each may be the only one there is. Several at once do no harm: each drops only letters that
it holds itself, and none as too many that would not be too many without those the others hold.

A letter is counted in the state store first and removed then. A crash in between counts it twice; none is dropped
without being counted, and none while the store is down.

RabbitMQ's own message TTL would be less code, but tells nobody what it dropped, and expires messages at the head of a
quorum queue only: one letter that is kept for ever would keep all behind it. A look passes over such letters, up to
:data:`LOOKED`; behind more of them, a letter goes when they do. It ends at letters too young to be over whatever their
reason. What a look holds is hidden from others until it ends, and then is back in its place.
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
LOOKED: Final = 10_000  # letters that stay, in hand at once
# A worker sends meanwhile: 16 letters take it a few milliseconds, and 16 in 50 ms are 320 a second.
PAUSE: Final = timedelta(milliseconds=50)
QUEUE_SECONDS: Final = 300.0  # for one queue; RabbitMQ takes letters back after 30 minutes. The next run goes on.
GIVING_BACK_SECONDS: Final = 60.0

NO_BOT: Final = "-"  # whose letters are of no configured bot; no bot can be named so
OTHER: Final = "other"  # a reason that is none of ours, as whoever may publish can write any
_FORBIDDEN: Final = 403
_MAY_NOT: Final = (
    "Dead letters stay however old and many they are: this RabbitMQ account may not read them. Give it the worker's "
    "rights in docs/security.md, or run `floodgate dead-letters sweep` regularly with the operator's account."
)

CountDropped = Callable[[str, str, int], Awaitable[None]]
"""Adds to the count of a bot's dropped letters with a reason."""
Dropped = Counter[tuple[str, str]]
"""How many letters were dropped, by bot and reason."""


Letters = Sequence[tuple[QueuedMessage, DeadLetter]]


@dataclass(slots=True)
class QueueRetention:
    """Reads one queue: what it holds is dropped, or goes back at the end."""

    queue: str
    dropped: Dropped = field(default_factory=Counter)
    stayed: int = 0
    reader: AsyncQueueReader = field(init=False)


Step = Callable[[QueueRetention, Letters], Awaitable[bool]]
"""Deals with the next few letters; whether to go on."""


class Retention:
    """Belongs to the event loop of the connections.

    Parameters:
        count: is told of letters before they are dropped.
        pause: after each few letters, for a process that has something better to do.
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
        """Go round until the process stops."""
        for number in itertools.count(1):
            if await self._stopping.sleep(ROUND_SECONDS * random.uniform(0.5, 1.5)):
                return
            try:
                await self.sweep(look=number % LOOK_EVERY == 0)
            except FloodgateError as error:
                logger.warning("dead letters were not swept: %s", _explained(error))

    async def sweep(self, *, look: bool = True) -> Dropped:
        """Drop letters beyond the bound and, with ``look``, those whose time is over.

        Raises:
            RabbitMQError: it ended in the middle; the next sweep goes on.
            StateUnavailableError: likewise.
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
        """Take a few letters at a time from the queue's head until a step says that it was the last."""
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
        # What others hold is not ready, so both may hold letters that are too many, and neither drops too many.
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
    """As in ``news content: 12, news rights: 3``."""
    return ", ".join(f"{bot} {reason}: {number}" for (bot, reason), number in dropped.most_common())


def _explained(error: FloodgateError) -> str:
    return _MAY_NOT if isinstance(error, ChannelRefusedError) and error.code == _FORBIDDEN else str(error)
