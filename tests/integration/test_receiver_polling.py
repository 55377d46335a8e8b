"""Polling on a real RabbitMQ and the fake: nothing is confirmed to Telegram that RabbitMQ has not."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from broker import topology
from broker.browse import browse
from broker.connections import Connections
from broker.consumer import Delivery
from broker.settings import Settings
from broker.update import Update, decode_update
from fake_telegram import FakeTelegram
from fake_telegram.injection import inject
from fake_telegram.webhooks import Backoff
from producer.receiver.process import Mode, Receiver
from tests.proxy import Proxy
from tests.services import Vhost
from tests.waiting import until

BOT, OTHER = "b", "other"
BOT_ID, OTHER_ID = 123456, 654321
TOKENS = {BOT: f"{BOT_ID}:" + "A" * 35, OTHER: f"{OTHER_ID}:" + "B" * 35}
PARTITIONS = 2
SOON = 20.0


class Taken:
    """What was taken out of queues, in order of each. Filled by the I/O thread."""

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []

    def __call__(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)
        delivery.ack()


class Stage:
    """A fake, a RabbitMQ, and receivers by the same settings."""

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
        """A receiver for the length of the block, which it outlives only as long as a stop takes."""
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
        """What lies in a queue of dead letters, in order."""
        return [seen.body for seen in browse(self.connections, queue, 1000)]

    def updates(self, bot: str = BOT) -> list[Update]:
        """Those that lie in the bot's queues, in order of each, taken out of them."""
        count, found = self.waiting(bot), Taken()
        queues = [topology.updates_queue(bot, n) for n in range(PARTITIONS)]
        made = topology.pipeline([bot], 1, update_partitions=PARTITIONS)
        taking = [self.connections.subscribe(queue, "test", found, made) for queue in queues]
        until(lambda: len(found.deliveries) == count, SOON)
        for each in taking:
            each.close()
        found.deliveries.sort(key=lambda delivery: queues.index(delivery.queue))  # stable
        return [decode_update(delivery.body) for delivery in found.deliveries]

    def ids(self, bot: str = BOT) -> list[int]:
        return [update.update_id for update in self.updates(bot)]

    def waiting(self, bot: str = BOT) -> int:
        queues = [topology.updates_queue(bot, n) for n in range(PARTITIONS)]
        return sum(depth or 0 for depth in topology.depth(self.connections, queues).values())

    def refusals(self) -> list[int]:
        return [call.code for call in self.fake.exchange.arrivals.snapshot() if call.code not in (200, None)]


def run(vhost: Vhost, use: Callable[[Stage], Coroutine[Any, Any, None]], **fake_settings: Any) -> None:
    async def main() -> None:
        fake = FakeTelegram(webhook_backoff=Backoff(unit_seconds=0.05, longest_seconds=0.2), **fake_settings)
        await fake.start()
        stage = Stage(fake, vhost)
        try:
            await use(stage)
        finally:
            await fake.stop()
            await asyncio.to_thread(stage.connections.stop, 2)

    asyncio.run(main())


def test_what_telegram_gave_is_in_the_queues_in_order_and_confirmed(vhost: Vhost) -> None:
    async def use(stage: Stage) -> None:
        async with stage.receiving():
            said = [stage.say(str(n), user=user)[0] for n in range(60) for user in (7, 8, 9)]
            await stage.eventually(lambda: stage.waiting() == len(said))
            await stage.eventually(lambda: stage.pending() == 0)
        by_chat: dict[str | None, list[int]] = {}
        for update in await asyncio.to_thread(stage.updates):
            by_chat.setdefault(update.chat, []).append(update.update_id)
        assert by_chat == {"7": said[0::3], "8": said[1::3], "9": said[2::3]}
        assert not stage.refusals()

    run(vhost, use)


def test_the_offset_waits_for_rabbitmq(vhost: Vhost) -> None:
    async def use(stage: Stage) -> None:
        with Proxy(vhost.node.port) as proxy:
            async with stage.receiving(rabbitmq_url=proxy.url(vhost.url)):
                await stage.eventually(lambda: stage.calls("getUpdates"))
                proxy.stall()
                first = stage.say("before RabbitMQ answers again")
                await asyncio.sleep(1.0)
                assert stage.pending() == 1, "Telegram was told of what nobody has confirmed"
                proxy.flow()
                await stage.eventually(lambda: stage.pending() == 0)
            assert (await asyncio.to_thread(stage.ids))[:1] == first

    run(vhost, use)


def test_a_stop_in_good_order_repeats_nothing(vhost: Vhost) -> None:
    async def use(stage: Stage) -> None:
        said: list[int] = []
        for n in range(3):
            async with stage.receiving():
                said += stage.say(*(f"{n}.{m}" for m in range(150)))
                await stage.eventually(lambda: stage.waiting() > 0)
        async with stage.receiving():
            await stage.eventually(lambda: stage.pending() == 0)
        assert await asyncio.to_thread(stage.ids) == said
        assert not stage.refusals()

    run(vhost, use)


def test_several_bots_are_received_at_once_and_one_that_fails_holds_up_no_other(
    vhost: Vhost, caplog: pytest.LogCaptureFixture
) -> None:
    async def use(stage: Stage) -> None:
        async with stage.receiving(bots=TOKENS):
            stage.say("hi")
            await stage.eventually(lambda: stage.waiting() == 1)
        said = [record.getMessage() for record in caplog.records if "does not know its token" in record.getMessage()]
        assert len(said) == 1
        assert said[0].startswith(f"Bot {OTHER}: Telegram does not know its token (401 Unauthorized). Correct it in")

    run(vhost, use, tokens=[TOKENS[BOT]])


def test_what_is_no_update_is_kept_apart_and_what_is_of_an_unknown_type_passes(vhost: Vhost) -> None:
    async def use(stage: Stage) -> None:
        async with stage.receiving():
            stage.give(
                {"raw": {"no": "id"}},
                {"raw": "not even an object"},
                {"of_tomorrow": {"chat": {"id": 7, "type": "private"}, "colour": "blue"}},
                {"raw": {"update_id": "100"}},
            )
            stage.say("after all that")
            await stage.eventually(lambda: stage.waiting() == 2)
            await stage.eventually(lambda: stage.pending() == 0)
        odd, plain = await asyncio.to_thread(stage.updates)
        assert odd.body["of_tomorrow"]["colour"] == "blue"
        assert plain.body["message"]["text"] == "after all that"
        malformed = await asyncio.to_thread(stage.kept, topology.MALFORMED_QUEUE)
        assert [json.loads(body) for body in malformed] == [
            {"no": "id"},
            "not even an object",
            {"update_id": "100"},
        ]

    run(vhost, use)


def test_ten_megabytes_in_one_update_are_put_aside_and_the_rest_goes_on(vhost: Vhost) -> None:
    async def use(stage: Stage) -> None:
        async with stage.receiving():
            stage.say("x" * 10_000_000)
            stage.say("after it")
            await stage.eventually(lambda: stage.waiting() == 1)
            await stage.eventually(lambda: stage.pending() == 0)
        [update] = await asyncio.to_thread(stage.updates)
        assert update.body["message"]["text"] == "after it"

    run(vhost, use)


def test_a_bot_api_that_is_away_is_said_once_and_waited_for(vhost: Vhost, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def use(stage: Stage) -> None:
        with Proxy(int(stage.fake.url.rpartition(":")[2])) as proxy:
            proxy.refuse()
            async with stage.receiving(telegram_api_url=f"http://127.0.0.1:{proxy.port}"):
                stage.say("patience")
                await stage.eventually(lambda: "cannot be reached" in caplog.text)
                proxy.accept()
                await stage.eventually(lambda: stage.waiting() == 1)
                await stage.eventually(lambda: "come in again" in caplog.text)
        assert TOKENS[BOT] not in caplog.text

    run(vhost, use)


def test_a_webhook_that_is_set_is_deleted_before_polling_and_again_if_someone_sets_it(vhost: Vhost) -> None:
    async def use(stage: Stage) -> None:
        async def set_webhook() -> None:
            url = f"{stage.fake.url}/bot{TOKENS[BOT]}/setWebhook"
            async with aiohttp.ClientSession() as session, session.post(url, json={"url": "http://127.0.0.1:9"}):
                pass

        await set_webhook()
        said = stage.say("kept for the webhook")
        async with stage.receiving():
            await stage.eventually(lambda: stage.waiting() == 1)
            await set_webhook()
            said += stage.say("and once more")
            await stage.eventually(lambda: stage.waiting() == 2)
        assert await asyncio.to_thread(stage.ids) == said

    run(vhost, use)


def test_a_deleted_queue_is_made_again_and_loses_nothing_that_was_not_in_it(vhost: Vhost) -> None:
    async def use(stage: Stage) -> None:
        async with stage.receiving():
            await stage.eventually(lambda: stage.calls("getUpdates"))
            for n in range(PARTITIONS):
                await asyncio.to_thread(vhost.ctl, "delete_queue", topology.updates_queue(BOT, n))
            said = stage.say("one", "two", "three")
            await stage.eventually(lambda: stage.waiting() == len(said))
        assert await asyncio.to_thread(stage.ids) == said

    run(vhost, use)


def test_a_receiver_can_be_stopped_twice_and_before_it_runs(vhost: Vhost) -> None:
    async def use(stage: Stage) -> None:
        receiver = Receiver(stage.settings(), Mode.POLLING)
        receiver.stop()
        async with asyncio.timeout(SOON):
            await receiver.run()
        receiver.stop()
        receiver.stop()

    run(vhost, use)
