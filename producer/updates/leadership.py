"""Elects the active one of several receivers: the one that holds a bot's token, for as long as RabbitMQ confirms it.

Overview. ``leader.<bot>`` is a quorum queue with a single active consumer, and the token is a message in it. RabbitMQ
delivers the token to one receiver, the leader. The others wait as consumers and get the token when the leader's channel
or connection ends. So no service but RabbitMQ is needed, and a takeover takes as long as RabbitMQ takes to notice.

This alone does not stop the old leader in time. A receiver that is cut off from RabbitMQ would go on polling while
RabbitMQ has made another one active, and Telegram answers two pollers at once with 409. So there is a lease. The leader
replaces its token periodically: it publishes a new one, waits for the confirm, acks the old one, and must be delivered
the new one. That requires a majority of RabbitMQ's nodes and the place of the active consumer. A leader that has not
succeeded for three quarters of the lease steps down. A receiver that gets a token under which another one may still
lead waits for a whole lease first.

Tokens. There are two: ``held`` means that a receiver may still lead under it; ``free`` means that the last leader has
stopped. A receiver that finds no token in the queue publishes one before it starts to wait, so a queue that was deleted
or purged recovers: ``free`` if the queue has no consumer either, otherwise ``held``, which is always safe and costs the
receiver that gets it one lease. The queue keeps at most one waiting token and drops the oldest, so tokens do not pile
up, and the leader's next replacement drops any surplus one.

State, which belongs to the event loop: ``_token`` (the delivered token, not yet acked), ``_until`` (the time on the
monotonic clock until which this receiver may act), ``_seeded`` (whether the queue has a token, as far as we know),
``_term`` (the task that waits for the token, takes over and renews the lease).

Failures:

    connection or channel lost      the term ends at once, and the receiver waits again
    RabbitMQ silent or blocked      the term ends with a quarter of the lease left
    process suspended               `valid` is false afterwards; it is checked before every poll
    SIGKILL, power, network         the next receiver waits for a lease, then takes over
    SIGTERM                         the work ends, then a `free` token lets the next receiver take over at once
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
# All receivers use the same name, so that RabbitMQ prefers none: a new receiver must not attract the token.
CONSUMER: Final = "receiver"
# How often a lease is renewed, and the share of it after which the leader stops acting.
RENEWALS: Final = 4
USED_SHARE: Final = 0.75
RELEASE_SECONDS: Final = 2.0  # bound on publishing the `free` token at the end
RETRY_SECONDS: Final = 0.5
COUNT_SECONDS: Final = 10.0
# After a longer wait the receiver checks the queue again: a policy's TTL or an operator may have removed the token.
LOOK_AGAIN_SECONDS: Final = 60.0

LeaderWork = Callable[[], Coroutine[Any, Any, None]]


class Leadership:
    """Leadership for one bot. Belongs to the event loop.

    Args:
        lease_seconds: the length of the lease, which must be the same in all receivers.
    """

    def __init__(self, bot: str, intake: Intake, connections: Connections, lease_seconds: float) -> None:
        self._bot = bot
        self._queue = queue_names.leader_queue(bot)
        self._intake = intake
        self._connections = connections
        self._lease_seconds = lease_seconds
        self._token: Delivery | None = None
        self._token_delivered = asyncio.Event()
        self._until = 0.0
        self._seeded = False
        self._term: asyncio.Task[None] | None = None

    def valid(self) -> bool:
        """Whether this receiver may act as the leader now."""
        return time.monotonic() < self._until

    async def run(self, work: LeaderWork) -> None:
        """Run ``work`` whenever this receiver is the leader, until cancelled.

        ``work`` is cancelled when the lease is lost, and when this method is cancelled; in the second case it ends
        before another receiver may take over. It tells the two apart by :meth:`valid`.
        """
        await self._seed()
        subscription = self._subscribe()
        try:
            while True:
                self._term = asyncio.create_task(self._wait_and_lead(work), name=f"leader of {self._bot}")
                await asyncio.wait({self._term})
                if not self._term.cancelled():
                    self._term.result()  # raises if the task crashed
        finally:
            if self._term is not None:
                await _end(self._term)
            await self._release(subscription)

    def _subscribe(self) -> Subscription:
        return self._connections.subscribe(
            self._queue, CONSUMER, self._on_token, lambda: self._intake.topology, self._on_lost
        )

    def _on_token(self, delivery: Delivery) -> None:
        self._token = delivery
        self._token_delivered.set()

    def _on_lost(self) -> None:
        self._until = 0.0
        self._seeded = False  # the queue may have been deleted
        self._drop_token()
        if self._term is not None:
            self._term.cancel()

    def _drop_token(self) -> None:
        self._token = None
        self._token_delivered.clear()

    async def _wait_and_lead(self, work: LeaderWork) -> None:
        await self._await_token()
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
            logger.info("standing by: this receiver no longer takes the updates of bot %s", self._bot)
        for each in (task, keeping):
            if not each.cancelled():
                each.result()

    async def _await_token(self) -> None:
        while self._token is None:
            await self._seed()
            try:
                async with asyncio.timeout(LOOK_AGAIN_SECONDS):
                    await self._token_delivered.wait()
            except TimeoutError:
                self._seeded = False

    async def _take_over(self) -> bool:
        """Take the lease over: wait until a previous leader's lease has certainly ended, then replace its token."""
        assert self._token is not None
        if self._token.body != FREE:
            logger.info("taking over the updates of bot %s in %g s", self._bot, self._lease_seconds)
            await asyncio.sleep(self._lease_seconds)
        return await self._renew(time.monotonic() + self._lease_seconds)

    async def _keep(self) -> None:
        """Renew the lease until that fails."""
        pause = self._lease_seconds / RENEWALS
        while self.valid():
            await asyncio.sleep(pause)
            if not await self._renew(self._until):
                return

    async def _renew(self, deadline: float) -> bool:
        """Replace the token. Returns False if that fails before ``deadline``, on the monotonic clock."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(deadline - began):
                if self._token is not None:  # else the last attempt ended between the ack and the new token
                    await self._put(HELD)
                    old = self._token
                    self._drop_token()
                    old.ack()
                await self._token_delivered.wait()
        except TimeoutError:
            logger.warning("RabbitMQ did not confirm in time that this receiver leads bot %s", self._bot)
            return False
        self._until = began + self._lease_seconds * USED_SHARE
        return True

    async def _put(self, word: bytes) -> None:
        """Publish a token, retrying until RabbitMQ confirms it."""
        while True:
            try:
                return await self._intake.publish([self._publication(word)])
            except RabbitMQError as error:
                logger.debug("could not publish a token to %s: %s", self._queue, error)
                await asyncio.sleep(RETRY_SECONDS)

    async def _seed(self) -> None:
        """Make sure that the queue has a token. Called first before subscribing, or it would count this consumer."""
        count = partial(_count, self._queue)
        while not self._seeded:
            try:
                tokens, consumers = await self._connections.arun(count, COUNT_SECONDS)
                if not tokens:
                    await self._intake.publish([self._publication(HELD if consumers else FREE)])
                self._seeded = True
            except RabbitMQError as error:
                logger.debug("could not inspect %s: %s", self._queue, error)
                await asyncio.sleep(RETRY_SECONDS)

    def _publication(self, word: bytes) -> Publication:
        return Publication("", self._queue, word, f"leader-{self._bot}")

    async def _release(self, subscription: Subscription) -> None:
        token = self._token
        if token is not None and self.valid():
            subscription.drain()
            with suppress(TimeoutError, RabbitMQError):
                async with asyncio.timeout(RELEASE_SECONDS):
                    await self._intake.publish([self._publication(FREE)])
                    token.ack()
        self._until = 0.0
        subscription.close()


async def _end(task: asyncio.Task[None]) -> None:
    """Cancel a task and wait until it ends, even if the caller is cancelled meanwhile. These tasks end in bounded
    time."""
    task.cancel()
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait({task})


async def _count(queue: str, session: Session) -> tuple[int, int]:
    """Count the waiting tokens and the consumers."""
    channel = await session.channel()
    ok = await channel.call("queue_declare", queue=queue, passive=True)
    return ok.method.message_count, ok.method.consumer_count
