"""The fake over plain HTTP: request formats, refusals in Telegram's words, limits on a clock moved by hand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from floodgate.fake_telegram import FakeTelegram, FloodLimits
from floodgate.fake_telegram.scenarios import ChatState, ChatTrouble
from tests.waiting import until

TOKEN = "123456:" + "A" * 35
GROUP = -1000000000007
NO_LIMITS = FloodLimits(enabled=False)


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Caller:
    """Calls the Bot API as any HTTP client would."""

    def __init__(self, fake: FakeTelegram, session: aiohttp.ClientSession, token: str = TOKEN) -> None:
        self.fake = fake
        self.session = session
        self.token = token

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Makes a call with JSON parameters and returns the answer."""
        async with self.session.post(f"{self.fake.url}/bot{self.token}/{method}", json=params) as response:
            answer: dict[str, Any] = await response.json()
            assert answer.get("error_code", 200) == response.status
            return answer

    async def refusal(self, method: str, **params: Any) -> str:
        """Code and description of an answer that is a refusal."""
        answer = await self.call(method, **params)
        assert answer["ok"] is False
        return f"{answer['error_code']} {answer['description']}"


def with_fake(use: Callable[[Caller], Awaitable[None]], **settings: Any) -> None:
    async def main() -> None:
        fake = FakeTelegram(**{"limits": NO_LIMITS, **settings})
        await fake.start()
        try:
            async with aiohttp.ClientSession() as session:
                await use(Caller(fake, session))
        finally:
            await fake.stop()

    asyncio.run(main())


def test_parameters_are_accepted_in_all_of_telegrams_forms() -> None:
    async def use(bot: Caller) -> None:
        url = f"{bot.fake.url}/bot{TOKEN}/SENDmessage"
        form = aiohttp.FormData({"chat_id": "5", "text": "é"})
        multipart = aiohttp.FormData({"chat_id": "5", "text": "é"}, default_to_multipart=True)
        for request in (
            bot.session.get(url, params={"chat_id": "5", "text": "é"}),
            bot.session.post(url, params={"chat_id": "5", "text": "é"}),
            bot.session.post(url, params={"chat_id": "5"}, json={"text": "é"}),
            bot.session.post(url, json={"chat_id": 5, "text": "é"}),
            bot.session.post(url, data=form),
            bot.session.post(url, data=multipart),
        ):
            async with request as response:
                assert (await response.json())["result"]["text"] == "é"
        shown = [a.as_json()["params"] for a in bot.fake.exchange.arrivals.snapshot()]
        assert all((str(p["chat_id"]), p["text"]) == ("5", "é") for p in shown)

    with_fake(use)


def test_a_file_may_be_attached_by_name() -> None:
    async def use(bot: Caller) -> None:
        form = aiohttp.FormData()
        form.add_field("chat_id", "5")
        form.add_field("media", json.dumps([{"type": "photo", "media": "attach://a"}] * 2))
        form.add_field("a", b"x" * 1000, filename="a.jpg", content_type="image/jpeg")
        async with bot.session.post(f"{bot.fake.url}/bot{TOKEN}/sendMediaGroup", data=form) as response:
            result = (await response.json())["result"]
        assert [m["photo"][-1]["file_size"] for m in result] == [1000, 1000]
        record = bot.fake.exchange.arrivals.snapshot()[0].as_json()
        assert record["params"]["a"] == {"name": "a.jpg", "size": 1000}

    with_fake(use)


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/botnonsense/getMe", 404),
        ("/bot123:short/getMe", 404),
        (f"/bot{TOKEN}/noSuchMethod", 404),
        (f"/bot{TOKEN}/", 404),
        ("/", 404),
        (f"/file/bot{TOKEN}/photos/none.jpg", 404),
    ],
)
def test_an_unknown_path_is_404(path: str, code: int) -> None:
    async def use(bot: Caller) -> None:
        async with bot.session.get(bot.fake.url + path) as response:
            assert (response.status, await response.json()) == (
                code,
                {"ok": False, "error_code": code, "description": "Not Found"},
            )

    with_fake(use)


def test_an_unlisted_token_is_401() -> None:
    async def use(bot: Caller) -> None:
        assert (await bot.call("getMe"))["ok"]
        stranger = Caller(bot.fake, bot.session, "99:" + "B" * 35)
        assert await stranger.refusal("getMe") == "401 Unauthorized"

    with_fake(use, tokens=[TOKEN])


@pytest.mark.parametrize(
    ("method", "params", "refusal"),
    [
        ("sendMessage", {"text": "x"}, "chat_id is empty"),
        ("sendMessage", {"chat_id": "someone", "text": "x"}, "chat not found"),
        ("sendMessage", {"chat_id": 0, "text": "x"}, "chat not found"),
        ("sendMessage", {"chat_id": 2**60, "text": "x"}, "chat not found"),
        ("sendMessage", {"chat_id": 5}, "message text is empty"),
        ("sendMessage", {"chat_id": 5, "text": " \n"}, "message text is empty"),
        ("sendMessage", {"chat_id": 5, "text": "x" * 4097}, "message is too long"),
        ("sendPhoto", {"chat_id": 5, "photo": "http://e.org/p", "caption": "x" * 1025}, "message caption is too long"),
        ("sendPhoto", {"chat_id": 5}, "there is no photo in the request"),
        ("sendPhoto", {"chat_id": 5, "photo": "AgACfake"}, "wrong file identifier/HTTP URL specified"),
        (
            "sendMessage",
            {"chat_id": 5, "text": "x", "reply_markup": "{"},
            "can't parse reply keyboard markup JSON object",
        ),
        ("sendMessage", {"chat_id": 5, "text": "x", "reply_markup": []}, "object expected as reply markup"),
        (
            "sendMessage",
            {"chat_id": 5, "text": "x", "reply_markup": {"inline_keyboard": [[{"text": "a"}]]}},
            "can't parse inline keyboard button: Text buttons are unallowed in the inline keyboard",
        ),
        (
            "sendMessage",
            {
                "chat_id": 5,
                "text": "x",
                "reply_markup": {"inline_keyboard": [[{"text": "a", "callback_data": "x" * 65}]]},
            },
            "BUTTON_DATA_INVALID",
        ),
        (
            "sendMediaGroup",
            {"chat_id": 5, "media": [{"type": "photo"}] * 11},
            "too many messages to send as an album",
        ),
        (
            "copyMessages",
            {"chat_id": 5, "from_chat_id": 5, "message_ids": list(range(1, 102))},
            "too many message identifiers specified",
        ),
        ("copyMessages", {"chat_id": 5, "from_chat_id": 5}, "message identifiers are not specified"),
        ("copyMessage", {"chat_id": 5, "from_chat_id": 5, "message_id": 9}, "message to copy not found"),
        ("editMessageText", {"chat_id": 5, "text": "x"}, "message identifier is not specified"),
        ("sendChatAction", {"chat_id": 5, "action": "dancing"}, "wrong parameter action in request"),
    ],
)
def test_an_invalid_call_is_refused_in_telegrams_words(method: str, params: dict[str, Any], refusal: str) -> None:
    async def use(bot: Caller) -> None:
        assert await bot.refusal(method, **params) == f"400 Bad Request: {refusal}"

    with_fake(use)


def test_a_users_message_cannot_be_edited() -> None:
    async def use(bot: Caller) -> None:
        bot.fake.exchange.world.messages.keep(123456, 5, {"message_id": 1, "from": {"id": 5}, "text": "mine"})
        refusal = await bot.refusal("editMessageText", chat_id=5, message_id=1, text="yours")
        assert refusal == "400 Bad Request: message can't be edited"

    with_fake(use)


def test_a_body_over_fifty_megabytes_is_413_before_it_is_read() -> None:
    async def use(bot: Caller) -> None:
        host, port = bot.fake.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(f"POST /bot{TOKEN}/sendDocument HTTP/1.1\r\nHost: x\r\nContent-Length: 60000000\r\n\r\n".encode())
        assert b" 413 " in await asyncio.wait_for(reader.readline(), 5)
        writer.close()

    with_fake(use)


def test_a_429_states_the_wait_in_three_places() -> None:
    async def use(bot: Caller) -> None:
        await bot.call("sendMessage", chat_id=5, text="one")
        url = f"{bot.fake.url}/bot{TOKEN}/sendMessage"
        async with bot.session.post(url, json={"chat_id": 5, "text": "two"}) as response:
            assert (response.status, response.headers["Retry-After"]) == (429, "1")
            assert await response.json() == {
                "ok": False,
                "error_code": 429,
                "description": "Too Many Requests: retry after 1",
                "parameters": {"retry_after": 1},
            }

    with_fake(use, limits=FloodLimits())


def test_limits_follow_the_clock_and_count_albums_edits_and_topics() -> None:
    clock = Clock()

    async def use(bot: Caller) -> None:
        photos = [{"type": "photo", "media": "http://e.org/p"}] * 10
        assert (await bot.call("sendMediaGroup", chat_id=GROUP, media=photos))["ok"]
        assert (await bot.call("createForumTopic", chat_id=GROUP, name="t"))["ok"]
        text = (await bot.call("sendMessage", chat_id=GROUP, text="x"))["result"]
        for n in range(8):
            edited = await bot.call("editMessageText", chat_id=GROUP, message_id=text["message_id"], text=str(n))
            assert edited["ok"]
        assert "429" in await bot.refusal("sendMessage", chat_id=GROUP, text="21st")
        assert (await bot.call("sendChatAction", chat_id=GROUP, action="typing"))["ok"]
        clock.now += 60
        assert (await bot.call("sendMessage", chat_id=GROUP, text="next minute"))["ok"]

    with_fake(use, limits=FloodLimits(chat=None), clock=clock)


def test_paid_broadcast_applies_to_sends_and_not_to_forwards() -> None:
    async def use(bot: Caller) -> None:
        for chat in range(1, 101):
            sent = await bot.call("sendMessage", chat_id=chat, text="x", allow_paid_broadcast=True)
            assert sent["ok"]
        codes = [
            (await bot.call("forwardMessage", chat_id=c, from_chat_id=1, message_id=1, allow_paid_broadcast=True))["ok"]
            for c in range(200, 231)
        ]
        assert codes == [True] * 30 + [False]

    with_fake(use, limits=FloodLimits(), clock=Clock())


def test_a_call_in_slow_mode_acts_at_once_and_is_answered_late() -> None:
    async def use(bot: Caller) -> None:
        bot.fake.exchange.scenarios.set_chat(5, ChatState(ChatTrouble.SLOW_MODE, seconds=30))
        held = asyncio.create_task(bot.call("sendMessage", chat_id=5, text="x"))
        await asyncio.to_thread(until, lambda: bot.fake.exchange.arrivals.stats(0).acted)
        assert (await bot.call("sendMessage", chat_id=6, text="x"))["ok"]
        assert not held.done()
        held.cancel()

    with_fake(use)


def test_a_partial_album_leaves_its_first_message() -> None:
    async def use(bot: Caller) -> None:
        bot.fake.exchange.scenarios.set_chat(5, ChatState(ChatTrouble.PARTIAL_ALBUM, times=1))
        photos = [{"type": "photo", "media": "http://e.org/p"}] * 3
        refusal = await bot.refusal("sendMediaGroup", chat_id=5, media=photos)
        assert refusal.startswith("400 Bad Request: failed to send message #2 with the error message")
        assert bot.fake.exchange.world.messages.find(123456, 5, 1)
        assert len((await bot.call("sendMediaGroup", chat_id=5, media=photos))["result"]) == 3

    with_fake(use)


def test_5xx_errors_have_a_proxys_html_body() -> None:
    async def use(bot: Caller) -> None:
        async with bot.session.post(
            f"{bot.fake.url}/control/server", json={"faults": [{"kind": "error", "code": 504, "acts": True}]}
        ):
            pass
        async with bot.session.get(f"{bot.fake.url}/bot{TOKEN}/sendMessage?chat_id=5&text=x") as response:
            assert (response.status, response.content_type) == (504, "text/html")
        assert bot.fake.exchange.arrivals.snapshot()[-1].acted

    with_fake(use)


@pytest.mark.parametrize("body", [b"{", b"[1]", b"\xff\xfe", b"[" * 100_000])
def test_an_unreadable_body_is_refused_and_recorded(body: bytes) -> None:
    async def use(bot: Caller) -> None:
        headers = {"Content-Type": "application/json"}
        url = f"{bot.fake.url}/bot{TOKEN}/sendMessage"
        async with bot.session.post(url, data=body, headers=headers) as response:
            assert response.status == 400
        assert bot.fake.exchange.arrivals.snapshot()[-1].code == 400

    with_fake(use)


@pytest.mark.parametrize(
    "body", [b"", b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n", b"--b\r\nnonsense"]
)
def test_a_broken_multipart_form_is_a_bad_request(body: bytes) -> None:
    async def use(bot: Caller) -> None:
        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        url = f"{bot.fake.url}/bot{TOKEN}/sendMessage"
        async with bot.session.post(url, data=body, headers=headers) as response:
            assert response.status == 400

    with_fake(use)
