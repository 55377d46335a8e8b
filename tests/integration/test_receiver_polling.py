"""Polling on a real RabbitMQ and the fake: only updates that RabbitMQ has are confirmed to Telegram."""

from __future__ import annotations

import asyncio
import json
import logging

import aiohttp
import pytest

from floodgate.broker.messages import queue_names
from floodgate.broker.messages.update import UPDATE_TYPES
from floodgate.producer.updates.process import Mode, Receiver
from tests.proxy import Proxy
from tests.receiving import BOT, BOT_ID, OTHER, PARTITIONS, SOON, TOKENS, Stage, run
from tests.services import Vhost


def test_received_updates_are_queued_in_order_and_confirmed(vhost: Vhost) -> None:
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


@pytest.mark.parametrize(
    ("allowed", "asked", "left_out"),
    [
        ([], [], "chat_member, message_reaction, message_reaction_count"),
        (["all"], list(UPDATE_TYPES), ""),
        ([each for each in UPDATE_TYPES if each != "poll"], [each for each in UPDATE_TYPES if each != "poll"], "poll"),
    ],
)
def test_telegram_is_asked_for_the_allowed_types_and_the_log_names_the_others(
    vhost: Vhost, caplog: pytest.LogCaptureFixture, allowed: list[str], asked: list[str], left_out: str
) -> None:
    async def use(stage: Stage) -> None:
        async with stage.receiving(updates={"allowed": allowed, "lease_seconds": 1, "poll_seconds": 2}):
            await stage.eventually(lambda: stage.calls("getUpdates"))
            inbox = stage.fake.exchange.world.receiving.inbox(BOT_ID)
            await stage.eventually(lambda: inbox.allowed == frozenset(asked))

    with caplog.at_level(logging.INFO, "floodgate.updates"):
        run(vhost, use)
    said = [record.getMessage() for record in caplog.records if "not asking Telegram for" in record.getMessage()]
    assert [line.partition("for updates of these types: ")[2].partition(" (")[0] for line in said] == (
        [left_out] if left_out else []
    )


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


def test_a_clean_stop_repeats_nothing(vhost: Vhost) -> None:
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


def test_several_bots_are_polled_at_once_and_a_failing_one_does_not_delay_the_others(
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


def test_malformed_updates_are_set_aside_and_unknown_types_are_queued(vhost: Vhost) -> None:
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
        malformed = await asyncio.to_thread(stage.kept, queue_names.MALFORMED_QUEUE)
        assert [json.loads(body) for body in malformed] == [
            {"no": "id"},
            "not even an object",
            {"update_id": "100"},
        ]

    run(vhost, use)


def test_an_update_of_ten_megabytes_is_set_aside_and_the_rest_continues(vhost: Vhost) -> None:
    async def use(stage: Stage) -> None:
        async with stage.receiving():
            stage.say("x" * 10_000_000)
            stage.say("after it")
            await stage.eventually(lambda: stage.waiting() == 1)
            await stage.eventually(lambda: stage.pending() == 0)
        [update] = await asyncio.to_thread(stage.updates)
        assert update.body["message"]["text"] == "after it"

    run(vhost, use)


def test_an_unavailable_bot_api_is_logged_once_and_waited_for(vhost: Vhost, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def use(stage: Stage) -> None:
        with Proxy(int(stage.fake.url.rpartition(":")[2])) as proxy:
            proxy.refuse()
            async with stage.receiving(telegram_api_url=f"http://127.0.0.1:{proxy.port}"):
                stage.say("patience")
                await stage.eventually(lambda: "cannot be reached" in caplog.text)
                proxy.accept()
                await stage.eventually(lambda: stage.waiting() == 1)
                await stage.eventually(lambda: "arrive again" in caplog.text)
        assert TOKENS[BOT] not in caplog.text

    run(vhost, use)


def test_a_webhook_is_deleted_before_polling_and_again_if_it_is_set_during_polling(vhost: Vhost) -> None:
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


def test_a_deleted_queue_is_recreated_and_later_updates_are_not_lost(vhost: Vhost) -> None:
    async def use(stage: Stage) -> None:
        async with stage.receiving():
            await stage.eventually(lambda: stage.calls("getUpdates"))
            for n in range(PARTITIONS):
                await asyncio.to_thread(vhost.ctl, "delete_queue", queue_names.updates_queue(BOT, n))
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
