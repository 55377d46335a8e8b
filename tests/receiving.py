"""Support for the receiver's tests: a fake Telegram, a RabbitMQ, receivers with the same settings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from floodgate.broker.amqp import queue_admin, topology
from floodgate.broker.amqp.async_queue_reader import browse
from floodgate.broker.amqp.connections import Connections
from floodgate.broker.amqp.consumer import Delivery
from floodgate.broker.messages import queue_names
from floodgate.broker.messages.update import Update, decode_update
from floodgate.broker.settings.model import Settings
from floodgate.fake_telegram import FakeTelegram
from floodgate.fake_telegram.injection import inject
from floodgate.fake_telegram.webhooks import PostBackoff
from floodgate.producer.updates.process import Mode, Receiver
from tests.services import Vhost
from tests.waiting import until

BOT, OTHER = "b", "other"
BOT_ID, OTHER_ID = 123456, 654321
TOKENS = {BOT: f"{BOT_ID}:" + "A" * 35, OTHER: f"{OTHER_ID}:" + "B" * 35}
PARTITIONS = 2
SOON = 20.0


class Taken:
    """Messages taken out of queues, in order within each. Filled by the I/O thread."""

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []

    def __call__(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)
        delivery.ack()


def count_updates(connections: Connections, bot: str, partitions: int) -> int:
    """Counts the messages in a bot's queues."""
    queues = [queue_names.updates_queue(bot, n) for n in range(partitions)]
    return sum(depth or 0 for depth in queue_admin.depth(connections, queues).values())


def take_updates(connections: Connections, bot: str, partitions: int) -> list[Update]:
    """Takes the messages out of a bot's queues, in order within each."""
    count, found = count_updates(connections, bot, partitions), Taken()
    queues = [queue_names.updates_queue(bot, n) for n in range(partitions)]
    made = topology.pipeline([bot], 1, update_partitions=partitions)
    taking = [connections.subscribe(queue, "test", found, lambda: made) for queue in queues]
    until(lambda: len(found.deliveries) == count, SOON)
    for each in taking:
        each.close()
    found.deliveries.sort(key=lambda delivery: queues.index(delivery.queue))  # stable
    return [decode_update(delivery.body) for delivery in found.deliveries]


class Stage:
    """A fake, a RabbitMQ, and receivers with the same settings."""

    def __init__(self, fake: FakeTelegram, vhost: Vhost) -> None:
        self.fake = fake
        self.vhost = vhost
        self.connections = Connections(self.settings(), "test")

    def settings(self, **changes: Any) -> Settings:
        return Settings(
            _env_file=None,
            **{
                "rabbitmq_url": self.vhost.url,
                "telegram_api_url": self.fake.url,
                "bots": {BOT: TOKENS[BOT]},
                "partitions": 1,
                "update_partitions": PARTITIONS,
                "updates": {"lease_seconds": 1, "poll_seconds": 2},
                **changes,
            },
        )

    @asynccontextmanager
    async def receiving(self, mode: Mode = Mode.POLLING, **changes: Any) -> AsyncIterator[Receiver]:
        """Runs a receiver for the length of the block, then stops it."""
        receiver, ready = Receiver(self.settings(**changes), mode), asyncio.Event()
        task = asyncio.create_task(receiver.run(lambda _line: ready.set()))
        try:
            async with asyncio.timeout(SOON):
                await asyncio.wait({task, asyncio.ensure_future(ready.wait())}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
            yield receiver
        finally:
            receiver.stop()
            async with asyncio.timeout(SOON):
                await task

    def say(self, *texts: str, user: int = 7, bot_id: int = BOT_ID) -> list[int]:
        return inject(self.fake.exchange.world, bot_id, [{"user": user, "text": text} for text in texts])

    def give(self, *descriptions: dict[str, Any]) -> list[int]:
        return inject(self.fake.exchange.world, BOT_ID, descriptions)

    def pending(self, bot_id: int = BOT_ID) -> int:
        return len(self.fake.exchange.world.receiving.inbox(bot_id).pending)

    def calls(self, method: str) -> list[Any]:
        return [call for call in self.fake.exchange.arrivals.snapshot() if call.method == method]

    async def eventually(self, probe: Callable[[], Any], seconds: float = SOON) -> Any:
        return await asyncio.to_thread(until, probe, seconds)

    def kept(self, queue: str) -> list[bytes]:
        """The contents of a queue of dead letters, in order."""
        return [seen.body for seen in browse(self.connections, queue, 1000)]

    def updates(self, bot: str = BOT) -> list[Update]:
        """Takes the ids out of the bot's queues, in order within each."""
        return take_updates(self.connections, bot, PARTITIONS)

    def ids(self, bot: str = BOT) -> list[int]:
        return [update.update_id for update in self.updates(bot)]

    def waiting(self, bot: str = BOT) -> int:
        return count_updates(self.connections, bot, PARTITIONS)

    def refusals(self) -> list[int]:
        return [call.code for call in self.fake.exchange.arrivals.snapshot() if call.code not in (200, None)]


def run(vhost: Vhost, use: Callable[[Stage], Coroutine[Any, Any, None]], **fake_settings: Any) -> None:
    async def main() -> None:
        fake = FakeTelegram(webhook_backoff=PostBackoff(unit_seconds=0.05, longest_seconds=0.2), **fake_settings)
        await fake.start()
        stage = Stage(fake, vhost)
        try:
            await use(stage)
        finally:
            await fake.stop()
            await asyncio.to_thread(stage.connections.stop, 2)

    asyncio.run(main())
