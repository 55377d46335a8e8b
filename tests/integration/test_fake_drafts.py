"""Drafts in the fake: their life, their end, and what a chat shows."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from floodgate.fake_telegram.control import ControlClient
from floodgate.fake_telegram.drafts import Drafts
from tests.integration.test_fake_telegram_http import Caller, with_fake

BOT, USER, GROUP = 123456, 42, -1000000000007
MOMENT = 1_000.0


class Wall:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = MOMENT

    def __call__(self) -> float:
        return self.now


def shown(caller: Caller, chat: int = USER) -> tuple[list[str], Any]:
    world = caller.fake.exchange.world
    draft = world.drafts.find(BOT, chat, world.wall())
    return [message["text"] for message in world.messages.latest(BOT, chat, 10)], draft and draft.get("text", "")


def play(act: Callable[[Caller, Wall], Awaitable[None]]) -> None:
    wall = Wall()
    with_fake(lambda caller: act(caller, wall), wall=wall)


def test_a_draft_is_shown_for_thirty_seconds_after_it_was_last_sent() -> None:
    async def act(bot: Caller, wall: Wall) -> None:
        for text in ("Once", "Once upon"):
            assert (await bot.call("sendMessageDraft", chat_id=USER, draft_id=1, text=text))["result"] is True
            wall.now += 29
        assert shown(bot) == ([], "Once upon")
        wall.now += 1
        assert shown(bot) == ([], None)

    play(act)


def test_a_message_of_the_bot_ends_the_draft_in_its_chat_only() -> None:
    async def act(bot: Caller, wall: Wall) -> None:
        for chat in (USER, 43):
            await bot.call("sendMessageDraft", chat_id=chat, draft_id=1, text="Once")
        await bot.call("sendMessage", chat_id=USER, text="Once upon a time.")
        assert shown(bot) == (["Once upon a time."], None)
        assert shown(bot, 43) == ([], "Once")

    play(act)


def test_a_chat_shows_messages_as_they_were_edited_and_an_empty_draft() -> None:
    async def act(bot: Caller, wall: Wall) -> None:
        for text in ("one", "two"):
            await bot.call("sendMessage", chat_id=USER, text=text)
        await bot.call("editMessageText", chat_id=USER, message_id=1, text="edited")
        await bot.call("sendMessageDraft", chat_id=USER, draft_id=7)
        assert shown(bot) == (["edited", "two"], "")

    play(act)


@pytest.mark.parametrize(
    ("params", "refusal"),
    [
        ({"chat_id": GROUP, "draft_id": 1}, "400 Bad Request: the draft must be sent to a private chat"),
        ({"chat_id": USER, "draft_id": 0}, "400 Bad Request: draft identifier must be non-zero"),
        ({"chat_id": USER, "draft_id": 1, "text": "x" * 4097}, "400 Bad Request: message is too long"),
    ],
)
def test_a_wrong_draft_is_refused(params: dict[str, Any], refusal: str) -> None:
    async def act(bot: Caller, wall: Wall) -> None:
        assert await bot.refusal("sendMessageDraft", **params) == refusal

    play(act)


def test_a_rich_draft_and_a_rich_message_need_one_form_of_content() -> None:
    async def act(bot: Caller, wall: Wall) -> None:
        rich = {"markdown": "# One"}
        assert (await bot.call("sendRichMessageDraft", chat_id=USER, draft_id=1, rich_message=rich))["ok"]
        sent = (await bot.call("sendRichMessage", chat_id=USER, rich_message=rich))["result"]
        assert sent["rich_message"]["blocks"] == [{"type": "paragraph", "text": "# One"}]
        both = {**rich, "html": "<b>x</b>"}
        assert "exactly one" in await bot.refusal("sendRichMessage", chat_id=USER, rich_message=both)

    play(act)


def test_the_control_api_tells_what_a_chat_shows() -> None:
    async def act(bot: Caller, wall: Wall) -> None:
        await bot.call("sendMessage", chat_id=USER, text="hi")
        await bot.call("sendMessageDraft", chat_id=USER, draft_id=3, text="so")
        control = await asyncio.to_thread(ControlClient(bot.fake.url).shown, BOT, USER)
        assert [message["text"] for message in control.messages] == ["hi"]
        assert control.draft == {"draft_id": 3, "text": "so"}

    play(act)


def test_the_number_of_drafts_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("floodgate.fake_telegram.drafts.MOST_DRAFTS", 2)
    drafts = Drafts()
    for chat in (1, 2, 1, 3):
        drafts.show(BOT, chat, {"draft_id": 1}, MOMENT)
    assert [drafts.find(BOT, chat, MOMENT) is not None for chat in (1, 2, 3)] == [True, False, True]
