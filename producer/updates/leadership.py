"""Which of several receivers is the active one: whoever holds a bot's token, and RabbitMQ keeps confirming it.

Overview. ``leader.<bot>`` is a quorum queue with a single active consumer, and a message in it is the token. RabbitMQ
gives it to one receiver; the others wait behind as consumers and get it when that one's channel or connection ends. So
there is no service but RabbitMQ, and a hand-over takes as long as RabbitMQ takes to notice.

What that alone does not give is that the old one knows in time. A receiver that is cut off from RabbitMQ would go on
polling while RabbitMQ has made another the active one, and two pollers at once are what Telegram answers with 409. So
there is a lease. The holder replaces its token again and again: it publishes a new one, has it confirmed, acks the old
one, and must be given the new one. That takes a majority of RabbitMQ's nodes and the active consumer's place. What has
not succeeded for three quarters of a lease ends the reign. And who is given a token by which another may still be
reigning waits for a whole lease first.

Tokens. Two words: ``held``, somebody may be reigning by it; ``free``, the last one has stopped and said so. A
receiver that finds none waiting puts one in before it waits itself, so a queue that was deleted or emptied starts
again: ``free`` when there is no consumer either, otherwise ``held``, which is always safe and costs its finder one
lease. The queue keeps
one waiting token at most and drops the oldest, so they do not pile up, and the holder's next replacement drops
whatever came in besides.

State, all of it the event loop's: ``_hand`` (the token given and not settled), ``_until`` (up to when we may act, on
the monotonic clock), ``_seeded`` (a token is there, as far as we know), ``_reign`` (the task that waits, takes over and
keeps).

Failures:

    connection or channel lost      the reign ends at once, and the wait begins again
    RabbitMQ silent or blocked      the reign ends with a quarter of the lease left
    this process stands still       `valid` says no afterwards; it is asked before every poll
    SIGKILL, power, network         the next one waits for a lease, then goes
    SIGTERM                         the work is ended, then a `free` token lets the next one go at once
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, Final

from floodgate.broker.amqp.connections import Connections
from floodgate.broker.amqp.consumer import Delivery, Subscription
from floodgate.broker.amqp.session import Session
from floodgate.broker.errors import RabbitMQError
from floodgate.broker.messages import queue_names
from floodgate.broker.messages.publication import Publication
from floodgate.producer.updates.intake import Intake

logger = logging.getLogger("floodgate.updates")

FREE: Final = b'"free"'
HELD: Final = b'"held"'
# All receivers go by the same name, so that RabbitMQ prefers none of them: a newcomer must not draw the token to it.
CONSUMER: Final = "receiver"
# Of the lease: how often it is renewed, and how much of it is used.
RENEWALS: Final = 4
USED_SHARE: Final = 0.75
GOODBYE_SECONDS: Final = 2.0  # bound on letting the next one know
RETRY_SECONDS: Final = 0.5
COUNT_SECONDS: Final = 10.0
# Who waits for longer puts in a token again: a policy's time limit, or an operator, may have taken the last one.
LOOK_AGAIN_SECONDS: Final = 60.0

LeaderWork = Callable[[], Coroutine[Any, Any, None]]


class Leadership:
    """One bot's token. Belongs to the event loop.

    Parameters:
        lease_seconds: the same in all receivers.
    """

    def __init__(self, bot: str, intake: Intake, connections: Connections, lease_seconds: float) -> None:
        self._bot = bot
        self._queue = queue_names.leader_queue(bot)
        self._intake = intake
        self._connections = connections
        self._lease_seconds = lease_seconds
        self._hand: Delivery | None = None
        self._given = asyncio.Event()
        self._until = 0.0
        self._seeded = False
        self._reign: asyncio.Task[None] | None = None

    def valid(self) -> bool:
        """Whether we may act as the active one now."""
        return time.monotonic() < self._until

    async def run(self, work: LeaderWork) -> None:
        """Have ``work`` run whenever we are the active one, until cancelled.

        ``work`` is cancelled when we are not any more, and when this is cancelled; then it has ended before another
        receiver is let go. It tells the two apart by :meth:`valid`.
        """
        await self._seed()
        subscription = self._subscribe()
        try:
            while True:
                self._reign = asyncio.create_task(self._wait_and_reign(work), name=f"leader of {self._bot}")
                await asyncio.wait({self._reign})
                if not self._reign.cancelled():
                    self._reign.result()  # a fault of ours, or nothing
        finally:
            if self._reign is not None:
                await _end(self._reign)
            await self._say_goodbye(subscription)

    def _subscribe(self) -> Subscription:
        return self._connections.subscribe(
            self._queue, CONSUMER, self._on_given, lambda: self._intake.topology, self._on_lost
        )

    def _on_given(self, delivery: Delivery) -> None:
        self._hand = delivery
        self._given.set()

    def _on_lost(self) -> None:
        self._until = 0.0
        self._seeded = False  # perhaps the queue was deleted
        self._drop_hand()
        if self._reign is not None:
            self._reign.cancel()

    def _drop_hand(self) -> None:
        self._hand = None
        self._given.clear()

    async def _wait_and_reign(self, work: LeaderWork) -> None:
        await self._be_given()
        if not await self._take_over():
            return
        logger.info("active: this receiver takes the updates of bot %s", self._bot)
        task = asyncio.create_task(work(), name=f"updates of {self._bot}")
        keeping = asyncio.create_task(self._keep(), name=f"lease of {self._bot}")
        try:
            await asyncio.wait({task, keeping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await _end(keeping)
            await _end(task)
            logger.info("standing by: this receiver does not take the updates of bot %s any more", self._bot)
        for each in (task, keeping):
            if not each.cancelled():
                each.result()

    async def _be_given(self) -> None:
        while self._hand is None:
            await self._seed()
            try:
                async with asyncio.timeout(LOOK_AGAIN_SECONDS):
                    await self._given.wait()
            except TimeoutError:
                self._seeded = False

    async def _take_over(self) -> bool:
        """With a token in hand: wait for who may still be reigning by it, then make it ours."""
        assert self._hand is not None
        if self._hand.body != FREE:
            logger.info("taking over the updates of bot %s in %g s", self._bot, self._lease_seconds)
            await asyncio.sleep(self._lease_seconds)
        return await self._renew(time.monotonic() + self._lease_seconds)

    async def _keep(self) -> None:
        """Renew the lease. Returns when it cannot be."""
        pause = self._lease_seconds / RENEWALS
        while self.valid():
            await asyncio.sleep(pause)
            if not await self._renew(self._until):
                return

    async def _renew(self, deadline: float) -> bool:
        """Replace the token in hand; whether that was done before ``deadline``, on the monotonic clock."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(deadline - began):
                if self._hand is not None:  # else the last attempt ended between the ack and the new token
                    await self._put(HELD)
                    old = self._hand
                    self._drop_hand()
                    old.ack()
                await self._given.wait()
        except TimeoutError:
            logger.warning("RabbitMQ has not confirmed in time that this receiver is the one of bot %s", self._bot)
            return False
        self._until = began + self._lease_seconds * USED_SHARE
        return True

    async def _put(self, word: bytes) -> None:
        """A token into the queue, however often that has to be tried."""
        while True:
            try:
                return await self._intake.publish([self._token(word)])
            except RabbitMQError as error:
                logger.debug("a token for %s was not taken: %s", self._queue, error)
                await asyncio.sleep(RETRY_SECONDS)

    async def _seed(self) -> None:
        """See to it that there is a token. The first time before we subscribe, or we would count ourselves."""
        count = partial(_count, self._queue)
        while not self._seeded:
            try:
                tokens, consumers = await self._connections.arun(count, COUNT_SECONDS)
                if not tokens:
                    await self._intake.publish([self._token(HELD if consumers else FREE)])
                self._seeded = True
            except RabbitMQError as error:
                logger.debug("%s cannot be looked at: %s", self._queue, error)
                await asyncio.sleep(RETRY_SECONDS)

    def _token(self, word: bytes) -> Publication:
        return Publication("", self._queue, word, f"leader-{self._bot}")

    async def _say_goodbye(self, subscription: Subscription) -> None:
        hand = self._hand
        if hand is not None and self.valid():
            subscription.drain()
            with suppress(TimeoutError, RabbitMQError):
                async with asyncio.timeout(GOODBYE_SECONDS):
                    await self._intake.publish([self._token(FREE)])
                    hand.ack()
        self._until = 0.0
        subscription.close()


async def _end(task: asyncio.Task[None]) -> None:
    """Return when it has ended, whoever cancels us meanwhile. Tasks of ours end in bounded time."""
    task.cancel()
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait({task})


async def _count(queue: str, session: Session) -> tuple[int, int]:
    """Tokens that wait, and consumers."""
    channel = await session.channel()
    ok = await channel.call("queue_declare", queue=queue, passive=True)
    return ok.method.message_count, ok.method.consumer_count
