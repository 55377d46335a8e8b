"""How the fake delivers updates: long polling and webhooks, as Telegram does."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from floodgate.fake_telegram import FakeTelegram
from floodgate.fake_telegram.injection import Crowd, inject
from floodgate.fake_telegram.updates import RETENTION_SECONDS, Inbox
from floodgate.fake_telegram.webhooks import SECRET_HEADER, PostBackoff
from tests.waiting import until

TOKEN = "123456:" + "A" * 35
BOT_ID = 123456
SOON = 10.0  # bounds every wait of these tests; none is expected to come near it


class Hook:
    """A webhook that records posts and answers as configured."""

    def __init__(self) -> None:
        self.received: list[dict[str, Any]] = []
        self.secrets: list[str | None] = []
        self.statuses: list[int] = []
        """Statuses of the next answers; 200 when there is none left."""
        self.reply: dict[str, Any] | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.open_now = 0
        self.most_open = 0
        self.arrived = asyncio.Condition()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.received.append(await request.json())
        self.secrets.append(request.headers.get(SECRET_HEADER))
        self.open_now += 1
        self.most_open = max(self.most_open, self.open_now)
        async with self.arrived:
            self.arrived.notify_all()
        await self.gate.wait()
        self.open_now -= 1
        status = self.statuses.pop(0) if self.statuses else 200
        if self.reply is not None and status == 200:
            return web.json_response(self.reply)
        return web.Response(status=status)

    async def has_received(self, count: int) -> None:
        async with asyncio.timeout(SOON), self.arrived:
            await self.arrived.wait_for(lambda: len(self.received) >= count)

    def texts(self) -> list[str]:
        return [update["message"]["text"] for update in self.received]


class World:
    """A running fake, a running webhook, and a session to call the fake with."""

    def __init__(self, fake: FakeTelegram, hook: Hook, hook_url: str, session: aiohttp.ClientSession) -> None:
        self.fake, self.hook, self.hook_url, self.session = fake, hook, hook_url, session

    async def call(self, method: str, **params: Any) -> Any:
        async with self.session.post(f"{self.fake.url}/bot{TOKEN}/{method}", json=params) as response:
            answer = await response.json()
            return answer["result"] if answer["ok"] else f"{answer['error_code']} {answer['description']}"

    def say(self, *messages: tuple[int, str]) -> list[int]:
        return inject(self.fake.exchange.world, BOT_ID, [{"user": user, "text": text} for user, text in messages])

    def polling(self) -> bool:
        return self.fake.exchange.world.receiving.inbox(BOT_ID)._poll is not None

    async def until_pending(self, count: int) -> None:
        inbox = self.fake.exchange.world.receiving.inbox(BOT_ID)
        await asyncio.to_thread(until, lambda: len(inbox.pending) == count)


def run(use: Callable[[World], Awaitable[None]]) -> None:
    async def main() -> None:
        hook = Hook()
        runner = web.ServerRunner(web.Server(hook.handle))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        fake = FakeTelegram(webhook_backoff=PostBackoff(unit_seconds=0.01, longest_seconds=0.05))
        await fake.start()
        try:
            async with aiohttp.ClientSession() as session:
                await use(World(fake, hook, f"http://127.0.0.1:{runner.addresses[0][1]}/hook", session))
        finally:
            await fake.stop()
            await runner.cleanup()

    asyncio.run(main())


def test_a_long_poll_ends_when_an_update_arrives() -> None:
    async def use(world: World) -> None:
        poll = asyncio.create_task(world.call("getUpdates", timeout=50))
        async with asyncio.timeout(SOON):
            await asyncio.to_thread(until, world.polling)
            world.say((7, "hello"))
            updates = await poll
        assert [(u["message"]["chat"]["id"], u["message"]["text"]) for u in updates] == [(7, "hello")]

    run(use)


def test_updates_are_repeated_until_a_higher_offset_confirms_them() -> None:
    async def use(world: World) -> None:
        first, second = world.say((7, "one"), (8, "two"))
        assert [u["update_id"] for u in await world.call("getUpdates")] == [first, second]
        assert [u["update_id"] for u in await world.call("getUpdates", offset=first, limit=1)] == [first]
        assert [u["update_id"] for u in await world.call("getUpdates", offset=second)] == [second]
        assert await world.call("getUpdates", offset=second + 1) == []

    run(use)


def test_a_second_poller_ends_the_first_one_and_a_webhook_ends_both() -> None:
    async def use(world: World) -> None:
        first = asyncio.create_task(world.call("getUpdates", timeout=50))
        async with asyncio.timeout(SOON):
            await asyncio.to_thread(until, world.polling)
            second = asyncio.create_task(world.call("getUpdates", timeout=50))
            assert str(await first).startswith("409 Conflict: terminated by other getUpdates request")
            await world.call("setWebhook", url=world.hook_url)
            assert await second == "409 Conflict: terminated by setWebhook request"
        assert str(await world.call("getUpdates")).startswith("409 Conflict: can't use getUpdates method while webhook")

    run(use)


def test_a_disconnected_poller_does_not_block_the_next() -> None:
    async def use(world: World) -> None:
        url = f"{world.fake.url}/bot{TOKEN}/getUpdates?timeout=50"
        with pytest.raises(TimeoutError):
            await world.session.get(url, timeout=aiohttp.ClientTimeout(total=0.1))
        world.say((7, "hello"))
        assert len(await world.call("getUpdates", timeout=1)) == 1

    run(use)


def test_a_webhook_gets_updates_with_its_secret() -> None:
    async def use(world: World) -> None:
        await world.call("setWebhook", url=world.hook_url, secret_token="s-1")
        world.say((7, "/start now"))
        await world.hook.has_received(1)
        assert world.hook.secrets == ["s-1"]
        assert world.hook.received[0]["message"]["entities"] == [{"type": "bot_command", "offset": 0, "length": 6}]
        await world.until_pending(0)

    run(use)


def test_a_failing_webhook_gets_an_update_again_until_it_accepts_it() -> None:
    async def use(world: World) -> None:
        world.hook.statuses = [500, 404, 302]
        await world.call("setWebhook", url=world.hook_url)
        world.say((7, "one"), (7, "two"))
        await world.hook.has_received(5)
        assert world.hook.texts() == ["one"] * 4 + ["two"]
        info = await world.call("getWebhookInfo")
        assert info["last_error_message"].startswith("Wrong response from the webhook: 302")

    run(use)


def test_a_failing_chat_does_not_delay_other_chats() -> None:
    async def use(world: World) -> None:
        world.hook.gate.clear()
        await world.call("setWebhook", url=world.hook_url, max_connections=10)
        world.say((7, "a1"), (7, "a2"), (8, "b1"))
        await world.hook.has_received(2)
        assert sorted(world.hook.texts()) == ["a1", "b1"]
        world.hook.gate.set()
        await world.hook.has_received(3)

    run(use)


def test_open_posts_never_exceed_max_connections() -> None:
    async def use(world: World) -> None:
        world.hook.gate.clear()
        await world.call("setWebhook", url=world.hook_url, max_connections=3)
        world.say(*((user, "x") for user in range(1, 21)))
        await world.hook.has_received(3)
        world.hook.gate.set()
        await world.hook.has_received(20)
        assert world.hook.most_open == 3

    run(use)


def test_each_of_thousands_of_users_keeps_its_order() -> None:
    async def use(world: World) -> None:
        await world.call("setWebhook", url=world.hook_url, max_connections=100)
        crowd = Crowd(users=500, per_user=4, text="{user}:{n}")
        assert len(inject(world.fake.exchange.world, BOT_ID, list(crowd.descriptions()))) == 2000
        await world.hook.has_received(2000)
        by_user = defaultdict(list)
        for text in world.hook.texts():
            user, n = text.split(":")
            by_user[user].append(int(n))
        assert len(by_user) == 500
        assert all(numbers == [1, 2, 3, 4] for numbers in by_user.values())

    run(use)


def test_switching_between_webhook_and_polling_loses_nothing() -> None:
    async def use(world: World) -> None:
        world.hook.gate.clear()
        await world.call("setWebhook", url=world.hook_url)
        world.say((7, "one"), (7, "two"))
        await world.hook.has_received(1)
        await world.call("deleteWebhook")
        texts = [u["message"]["text"] for u in await world.call("getUpdates")]
        assert texts == ["one", "two"]
        world.hook.gate.set()
        await world.call("setWebhook", url=world.hook_url)
        await world.until_pending(0)
        assert world.hook.texts()[-2:] == ["one", "two"]

    run(use)


def test_pending_updates_can_be_dropped() -> None:
    async def use(world: World) -> None:
        world.say((7, "one"))
        await world.call("deleteWebhook", drop_pending_updates=True)
        assert await world.call("getUpdates") == []

    run(use)


def test_a_webhook_may_answer_with_a_call() -> None:
    async def use(world: World) -> None:
        world.hook.reply = {"method": "sendMessage", "chat_id": 7, "text": "pong"}
        await world.call("setWebhook", url=world.hook_url)
        world.say((7, "ping"))
        await world.until_pending(0)
        arrivals = world.fake.exchange.arrivals.snapshot()
        sent = [a.as_json() for a in arrivals if a.method == "sendMessage"]
        assert [(a["chat_id"], a["params"]["text"], a["acted"]) for a in sent] == [(7, "pong", True)]

    run(use)


@pytest.mark.parametrize(
    ("params", "refusal"),
    [
        ({"url": "ftp://x"}, "bad webhook: An HTTPS URL must be provided for webhook"),
        ({"url": "http://x/", "secret_token": "ü"}, "secret token contains unallowed characters"),
        ({"url": "http://x/", "secret_token": "x" * 257}, "secret token is too long"),
    ],
)
def test_a_bad_webhook_is_refused(params: dict[str, str], refusal: str) -> None:
    async def use(world: World) -> None:
        assert await world.call("setWebhook", **params) == f"400 Bad Request: {refusal}"

    run(use)


def test_only_allowed_updates_are_delivered() -> None:
    async def use(world: World) -> None:
        await world.call("getUpdates", allowed_updates=json.dumps(["callback_query"]))
        assert world.say((7, "hello")) == []
        inject(world.fake.exchange.world, BOT_ID, [{"user": 7, "callback": "x"}])
        assert [u["callback_query"]["data"] for u in await world.call("getUpdates")] == ["x"]

    run(use)


def test_an_update_is_kept_for_one_day() -> None:
    now = [0.0]
    inbox = Inbox(lambda: now[0])

    async def given() -> list[int]:
        return [update.update_id for update in await inbox.poll(0, 100, 0)]

    async def use() -> None:
        old = inbox.add("message", {}, 7)
        now[0] = 3600.0
        young = inbox.add("message", {}, 7)
        now[0] = RETENTION_SECONDS - 1
        assert await given() == [old, young]
        now[0] = RETENTION_SECONDS
        assert await given() == [young]

    asyncio.run(use())


def test_malformed_updates_are_delivered_unchanged() -> None:
    async def use(world: World) -> None:
        inject(world.fake.exchange.world, BOT_ID, [{"raw": "nonsense"}, {"raw": {"update_id": "x"}}])
        assert await world.call("getUpdates") == ["nonsense", {"update_id": "x"}]

    run(use)
