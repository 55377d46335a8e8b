"""Webhooks on a real RabbitMQ and the fake: 200 only for updates that RabbitMQ has; all others are posted again."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from pydantic import SecretStr

from floodgate.producer.updates import webhook
from floodgate.producer.updates.process import MOST_POSTS, Mode
from floodgate.producer.updates.webhook import secret_of
from rabbitmq_node.engine import free_ports
from tests.proxy import Proxy
from tests.receiving import BOT, BOT_ID, OTHER, OTHER_ID, TOKENS, Stage, run
from tests.services import Vhost

SECRET = "X-Telegram-Bot-Api-Secret-Token"
UPDATE = {"update_id": 5, "message": {"message_id": 1, "chat": {"id": 7, "type": "private"}, "text": "hi"}}


@asynccontextmanager
async def posts_taken(stage: Stage, **changes: Any) -> AsyncIterator[str]:
    """Runs a receiver with a webhook; yields the bot's URL."""
    port = free_ports().amqp
    root = f"http://127.0.0.1:{port}/tg"
    updates = {"lease_seconds": 1, "poll_seconds": 2, "port": port, "webhook_url": root, "max_body_bytes": 64 * 1024}
    async with stage.receiving(Mode.WEBHOOK, updates=updates, **changes):
        yield f"{root}/{BOT}"


async def post(url: str, body: Any, secret: str | None = None, *, method: str = "POST") -> tuple[int, str]:
    secret = secret_of(SecretStr(TOKENS[BOT])) if secret is None else secret
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, url, data=data, headers={SECRET: secret} if secret else {}) as answer,
    ):
        return answer.status, await answer.text()


def test_posted_updates_are_queued_in_order_and_confirmed(vhost: Vhost) -> None:
    async def use(stage: Stage) -> None:
        async with posts_taken(stage, bots=TOKENS):
            said = [stage.say(str(n), user=user)[0] for n in range(20) for user in (7, 8, 9)]
            others = stage.say("hi", bot_id=OTHER_ID)
            await stage.eventually(lambda: stage.waiting() == len(said) and stage.waiting(OTHER) == 1)
            await stage.eventually(lambda: stage.pending() == stage.pending(OTHER_ID) == 0)
        by_chat: dict[str | None, list[int]] = {}
        for update in await asyncio.to_thread(stage.updates):
            by_chat.setdefault(update.chat, []).append(update.update_id)
        assert by_chat == {"7": said[0::3], "8": said[1::3], "9": said[2::3]}
        assert await asyncio.to_thread(stage.ids, OTHER) == others
        webhook = stage.fake.exchange.world.receiving.inbox(BOT_ID).webhook
        assert webhook is not None
        assert webhook.last_error_message == ""

    run(vhost, use)


def test_a_post_is_answered_only_after_rabbitmq_has_the_update(vhost: Vhost) -> None:
    async def use(stage: Stage) -> None:
        with Proxy(vhost.node.port) as proxy:
            async with posts_taken(stage, rabbitmq_url=proxy.url(vhost.url)) as url:
                assert await post(url, UPDATE) == (200, "")
                proxy.stall()
                posting = asyncio.create_task(post(url, {**UPDATE, "update_id": 6}))
                done, _ = await asyncio.wait({posting}, timeout=1.0)
                assert not done, "answered without RabbitMQ"
                proxy.flow()
                assert (await posting)[0] == 200
            assert await asyncio.to_thread(stage.ids) == [5, 6]

    run(vhost, use)


def test_an_update_that_rabbitmq_does_not_confirm_is_refused_with_503(vhost: Vhost) -> None:
    async def use(stage: Stage) -> None:
        with Proxy(vhost.node.port) as proxy:
            async with posts_taken(stage, rabbitmq_url=proxy.url(vhost.url), confirm_timeout_seconds=0.5) as url:
                proxy.stall()
                status, text = await post(url, UPDATE)
                assert (status, text) == (503, "RabbitMQ does not take it now: post it again.")
                proxy.flow()

    run(vhost, use)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, "not JSON"),
        (b"{", 400, "not JSON"),
        (b"\xff\xfe", 400, "not JSON"),
        (b"[" * 50_000, 400, "not JSON"),
        ([], 400, "not a JSON object"),
        ({"message": {}}, 400, "update_id is missing"),
        ({"update_id": "5"}, 400, "update_id is missing"),
        (b"x" * 65_537, 413, "More than 65536 bytes: FLOODGATE_UPDATES__MAX_BODY_BYTES"),
        (b"x" * 10_000_000, 413, "More than 65536 bytes"),
    ],
)
def test_a_post_that_is_not_an_update_is_refused_with_its_reason(
    vhost: Vhost, body: Any, status: int, words: str
) -> None:
    async def use(stage: Stage) -> None:
        async with posts_taken(stage) as url:
            answered, text = await post(url, body)
            assert answered == status
            assert words in text
            assert await post(url, UPDATE) == (200, ""), "and the next one is taken"

    run(vhost, use)


def test_a_body_without_a_length_is_also_bounded(vhost: Vhost) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 8192

    async def use(stage: Stage) -> None:
        async with posts_taken(stage) as url, aiohttp.ClientSession() as session:
            headers = {SECRET: secret_of(SecretStr(TOKENS[BOT]))}
            async with session.post(url, data=endless(), headers=headers) as answer:
                assert answer.status == 413

    run(vhost, use)


def test_a_body_that_does_not_arrive_is_refused(vhost: Vhost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "BODY_SECONDS", 0.1)

    async def silent() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    async def use(stage: Stage) -> None:
        async with posts_taken(stage) as url, aiohttp.ClientSession() as session:
            headers = {SECRET: secret_of(SecretStr(TOKENS[BOT]))}
            async with session.post(url, data=silent(), headers=headers) as answer:
                assert (answer.status, await answer.text()) == (408, "The body did not come.")

    run(vhost, use)


@pytest.mark.parametrize("secret", ["", "wrong", "ключ", secret_of(SecretStr(TOKENS[OTHER]))])
def test_a_post_without_the_bots_own_secret_is_refused(
    vhost: Vhost, secret: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def use(stage: Stage) -> None:
        async with posts_taken(stage, bots=TOKENS) as url:
            for _ in range(3):
                assert await post(url, UPDATE, secret) == (403, "Wrong secret.")
            assert stage.waiting() == 0
        assert [r.getMessage() for r in caplog.records].count("1 posts refused with 403: Wrong secret.") == 1

    run(vhost, use)


def test_unknown_paths_and_methods_are_refused(vhost: Vhost) -> None:
    async def use(stage: Stage) -> None:
        async with posts_taken(stage) as url:
            assert (await post(url + "x", UPDATE))[0] == 404
            assert (await post(url, UPDATE, method="PUT"))[0] == 405
            root = url.removesuffix(f"/tg/{BOT}")
            async with aiohttp.ClientSession() as session, session.get(f"{root}/health") as answer:
                assert (answer.status, await answer.text()) == (200, "alive")

    run(vhost, use)


def test_a_post_is_accepted_while_strangers_exceed_the_connection_limit(vhost: Vhost) -> None:
    async def use(stage: Stage) -> None:
        async with posts_taken(stage) as url:
            host, _, port = url.removeprefix("http://").partition("/")[0].partition(":")
            strangers = [await asyncio.open_connection(host, int(port)) for _ in range(MOST_POSTS + 500)]
            for _, writer in strangers:
                writer.write(b"POST /tg/default HTTP/1.1\r\nX-Slow: ")
            assert await post(url, UPDATE) == (200, "")
            for _, writer in strangers:
                writer.close()

    run(vhost, use)


def test_switching_between_polling_and_webhook_loses_nothing_and_repeats_only_the_same_ids(vhost: Vhost) -> None:
    async def use(stage: Stage) -> None:
        said: list[int] = []
        for turn in range(2):
            async with stage.receiving(Mode.POLLING):
                said += stage.say(*(f"polled {turn} {n}" for n in range(120)))
                await stage.eventually(lambda: stage.waiting() > 0)
            said += stage.say("while nobody is there")
            async with posts_taken(stage):
                said += stage.say(*(f"posted {turn} {n}" for n in range(40)))
                await stage.eventually(lambda: stage.fake.exchange.world.receiving.inbox(BOT_ID).webhook)
        async with stage.receiving(Mode.POLLING):
            await stage.eventually(lambda: stage.pending() == 0)
        ids = await asyncio.to_thread(stage.ids)
        assert list(dict.fromkeys(ids)) == said, "in order by their first coming, and none missing"
        assert not stage.refusals()

    run(vhost, use)


def test_receivers_of_both_modes_stand_by_for_each_other(vhost: Vhost) -> None:
    async def use(stage: Stage) -> None:
        async with stage.receiving(Mode.POLLING):
            await stage.eventually(lambda: stage.calls("getUpdates"))
            async with posts_taken(stage):
                said = stage.say("polled all the same")
                await stage.eventually(lambda: stage.waiting() == 1)
                assert not stage.calls("setWebhook")
        assert await asyncio.to_thread(stage.ids) == said
        assert not stage.refusals()

    run(vhost, use)


def test_a_webhook_refused_by_telegram_is_reported_in_one_sentence(
    vhost: Vhost, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)

    async def use(stage: Stage) -> None:
        async with posts_taken(stage):
            await stage.eventually(lambda: "does not know its token" in caplog.text)

    run(vhost, use, tokens=[TOKENS[OTHER]])
