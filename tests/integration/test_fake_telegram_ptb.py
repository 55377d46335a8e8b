"""python-telegram-bot, unmodified, works with the fake as with Telegram."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import pytest
from telegram import (
    Bot,
    BotCommand,
    InlineKeyboardButton,
    InlineKeyboardMarkup,
    InputMediaPhoto,
    InputMediaVideo,
    InputPaidMediaPhoto,
    LabeledPrice,
    Message,
    ReplyParameters,
)
from telegram.error import (
    BadRequest,
    ChatMigrated,
    Conflict,
    Forbidden,
    InvalidToken,
    NetworkError,
    RetryAfter,
    TelegramError,
    TimedOut,
)

from floodgate.fake_telegram import FakeTelegramThread, running_fake
from tests.waiting import until

TOKEN = "123456:" + "A" * 35
BOT_ID = 123456
JPEG = b"\xff\xd8\xff" + b"x" * 500
GROUP = -1000000000007


@pytest.fixture
def fake() -> Iterator[FakeTelegramThread]:
    with running_fake() as thread:
        yield thread


def with_bot(fake: FakeTelegramThread, use: Callable[[Bot], Awaitable[None]], token: str = TOKEN) -> None:
    async def main() -> None:
        bot = Bot(token, base_url=f"{fake.url}/bot", base_file_url=f"{fake.url}/file/bot")
        async with bot:
            await use(bot)

    asyncio.run(main())


def unlimited(fake: FakeTelegramThread) -> None:
    fake.control.limits(enabled=False)


def test_get_me_identifies_the_bot(fake: FakeTelegramThread) -> None:
    async def use(bot: Bot) -> None:
        me = await bot.get_me()
        assert (me.id, me.is_bot, me.username) == (BOT_ID, True, "fake123456_bot")

    with_bot(fake, use)


def test_a_sent_message_is_returned_unchanged(fake: FakeTelegramThread) -> None:
    async def use(bot: Bot) -> None:
        keyboard = InlineKeyboardMarkup([[InlineKeyboardButton("go", callback_data="go")]])
        sent = await bot.send_message(42, "<b>hi</b> é", parse_mode="HTML", reply_markup=keyboard)
        assert (sent.chat_id, sent.text, sent.message_id) == (42, "hi é", 1)
        assert (sent.entities[0].type, sent.reply_markup) == ("bold", keyboard)

    with_bot(fake, use)


def test_every_kind_of_message_is_accepted(fake: FakeTelegramThread) -> None:
    unlimited(fake)

    async def use(bot: Bot) -> None:
        for send, field in (
            (bot.send_audio(1, JPEG, title="t"), "audio"),
            (bot.send_document(1, JPEG, filename="a.txt"), "document"),
            (bot.send_video(1, JPEG, duration=9), "video"),
            (bot.send_animation(1, JPEG), "animation"),
            (bot.send_voice(1, JPEG), "voice"),
            (bot.send_video_note(1, JPEG), "video_note"),
            (bot.send_sticker(1, JPEG), "sticker"),
            (bot.send_live_photo(1, JPEG, JPEG), "live_photo"),
            (bot.send_photo(1, "https://example.org/p.jpg"), "photo"),
            (bot.send_location(1, 52.5, 13.4), "location"),
            (bot.send_venue(1, 52.5, 13.4, "t", "a"), "venue"),
            (bot.send_contact(1, "+49", "Ann"), "contact"),
            (bot.send_poll(1, "q?", ["a", "b"]), "poll"),
            (bot.send_dice(1), "dice"),
            (bot.send_game(1, "game"), "game"),
            (bot.send_invoice(1, "t", "d", "p", "XTR", [LabeledPrice("l", 5)]), "invoice"),
            (bot.send_paid_media(1, 5, [InputPaidMediaPhoto(JPEG)]), "paid_media"),
        ):
            assert getattr(await send, field), field
        assert await bot.send_chat_action(1, "typing")

    with_bot(fake, use)


def test_an_upload_can_be_downloaded_and_sent_again_by_its_id(fake: FakeTelegramThread) -> None:
    async def use(bot: Bot) -> None:
        photo = (await bot.send_photo(1, JPEG, caption="*c*", parse_mode="MarkdownV2")).photo[-1]
        assert bytes(await (await photo.get_file()).download_as_bytearray()) == JPEG
        assert (await bot.send_photo(2, photo.file_id)).photo[-1].file_id == photo.file_id

    with_bot(fake, use)


def test_a_file_id_is_valid_only_for_its_own_bot(fake: FakeTelegramThread) -> None:
    ids: list[str] = []

    async def upload(bot: Bot) -> None:
        ids.append((await bot.send_photo(1, JPEG)).photo[-1].file_id)

    async def steal(bot: Bot) -> None:
        with pytest.raises(BadRequest, match=r"[Ww]rong file identifier"):
            await bot.send_photo(1, ids[0])

    with_bot(fake, upload)
    with_bot(fake, steal, "777:" + "B" * 35)


def test_an_album_becomes_messages_of_one_media_group(fake: FakeTelegramThread) -> None:
    async def use(bot: Bot) -> None:
        album = await bot.send_media_group(
            GROUP, [InputMediaPhoto(JPEG, caption="one"), InputMediaVideo(JPEG), InputMediaPhoto(JPEG)]
        )
        assert [m.message_id for m in album] == [1, 2, 3]
        assert len({m.media_group_id for m in album}) == 1
        assert album[0].caption == "one"

    with_bot(fake, use)
    assert fake.control.arrivals()[-1].cost == 3


def test_edits_return_the_edited_message(fake: FakeTelegramThread) -> None:
    unlimited(fake)

    async def use(bot: Bot) -> None:
        sent = await bot.send_message(42, "one")
        edited = await sent.edit_text("two")
        assert isinstance(edited, Message)
        assert (edited.text, edited.message_id, bool(edited.edit_date)) == ("two", sent.message_id, True)
        with pytest.raises(BadRequest, match=r"[Mm]essage is not modified"):
            await sent.edit_text("two")
        with pytest.raises(BadRequest, match=r"[Mm]essage to edit not found"):
            await bot.edit_message_text("x", 42, 999)
        assert await bot.edit_message_text("x", inline_message_id="abc") is True
        photo = await bot.send_photo(42, JPEG)
        captioned, replaced = await photo.edit_caption("c"), await photo.edit_media(InputMediaVideo(JPEG))
        assert isinstance(captioned, Message)
        assert isinstance(replaced, Message)
        assert (captioned.caption, bool(replaced.video)) == ("c", True)

    with_bot(fake, use)


def test_messages_are_deleted_forwarded_copied_and_replied_to(fake: FakeTelegramThread) -> None:
    unlimited(fake)

    async def use(bot: Bot) -> None:
        sent = await bot.send_message(42, "one")
        forwarded = await bot.forward_message(43, 42, sent.message_id)
        assert forwarded.forward_origin
        assert (forwarded.text, forwarded.forward_origin.type) == ("one", "user")
        assert (await bot.copy_message(43, 42, sent.message_id)).message_id == 2
        assert [m.message_id for m in await bot.copy_messages(43, 42, [1, 2])] == [3]
        assert [m.message_id for m in await bot.forward_messages(43, 42, [1])] == [4]
        reply = await bot.send_message(42, "re", reply_parameters=ReplyParameters(sent.message_id))
        assert reply.reply_to_message
        assert reply.reply_to_message.message_id == sent.message_id
        assert await sent.delete()
        with pytest.raises(BadRequest, match="to delete not found"):
            await sent.delete()
        with pytest.raises(BadRequest, match="to forward not found"):
            await bot.forward_message(43, 42, sent.message_id)
        with pytest.raises(BadRequest, match="to be replied not found"):
            await bot.send_message(42, "re", reply_parameters=ReplyParameters(sent.message_id))

    with_bot(fake, use)


def test_polls_topics_and_pins_work(fake: FakeTelegramThread) -> None:
    unlimited(fake)

    async def use(bot: Bot) -> None:
        poll = await bot.send_poll(GROUP, "q?", ["a", "b"])
        assert (await bot.stop_poll(GROUP, poll.message_id)).is_closed
        assert await bot.pin_chat_message(GROUP, poll.message_id)
        topic = await bot.create_forum_topic(GROUP, "news")
        said = await bot.send_message(GROUP, "x", message_thread_id=topic.message_thread_id)
        assert said.message_thread_id == topic.message_thread_id
        with pytest.raises(BadRequest, match=r"[Mm]essage thread not found"):
            await bot.send_message(GROUP, "x", message_thread_id=777)

    with_bot(fake, use)


def test_a_pressed_button_can_be_answered_and_an_unknown_query_cannot(fake: FakeTelegramThread) -> None:
    async def use(bot: Bot) -> None:
        keyboard = InlineKeyboardMarkup([[InlineKeyboardButton("go", callback_data="go")]])
        sent = await bot.send_message(42, "press", reply_markup=keyboard)
        press = {"user": 42, "callback": "go", "message_id": sent.message_id}
        await asyncio.to_thread(fake.control.inject_updates, BOT_ID, [press])
        query = (await bot.get_updates(timeout=1))[0].callback_query
        assert query
        assert query.message
        assert (query.data, query.message.message_id) == ("go", sent.message_id)
        assert await query.answer("done")
        with pytest.raises(BadRequest, match=r"[Qq]uery is too old"):
            await bot.answer_callback_query("1")

    with_bot(fake, use)


def test_reads_return_complete_objects(fake: FakeTelegramThread) -> None:
    async def use(bot: Bot) -> None:
        assert (await bot.get_chat(GROUP)).type == "supergroup"
        assert (await bot.get_chat(42)).first_name == "User 42"
        assert (await bot.get_chat_member(GROUP, 42)).status == "member"
        assert await bot.get_chat_member_count(GROUP) > 0
        assert (await bot.get_chat_administrators(GROUP))[0].status == "creator"
        await bot.set_my_commands([BotCommand("start", "begin")])
        assert [c.command for c in await bot.get_my_commands()] == ["start"]
        assert (await bot.get_chat("@news")).id == (await bot.get_chat("@News")).id

    with_bot(fake, use)


def test_sending_too_fast_raises_retry_after(fake: FakeTelegramThread) -> None:
    async def use(bot: Bot) -> None:
        await bot.send_message(42, "one")
        with pytest.raises(RetryAfter):
            await bot.send_message(42, "two")

    with_bot(fake, use)
    assert fake.control.summary().refused_by == {"chat": 1}


@pytest.mark.parametrize(
    ("trouble", "details", "error", "words"),
    [
        ("blocked", {}, Forbidden, "bot was blocked by the user"),
        ("deactivated", {}, Forbidden, "user is deactivated"),
        ("kicked", {}, Forbidden, "bot was kicked from the supergroup chat"),
        ("not_found", {}, BadRequest, "[Cc]hat not found"),
        ("no_rights", {}, BadRequest, "[Nn]ot enough rights to send text messages to the chat"),
        ("topic_closed", {}, BadRequest, "[Tt]opic_closed"),
        ("migrated", {"migrate_to": -1000000000099}, ChatMigrated, "-1000000000099"),
        ("answer", {"code": 400, "description": "Bad Request: PEER_ID_INVALID"}, BadRequest, "[Pp]eer_id_invalid"),
    ],
)
def test_a_chat_fault_raises_the_librarys_own_error(
    fake: FakeTelegramThread, trouble: str, details: dict[str, object], error: type[TelegramError], words: str
) -> None:
    fake.control.set_chat(GROUP, trouble=trouble, **details)

    async def use(bot: Bot) -> None:
        with pytest.raises(error, match=words):
            await bot.send_message(GROUP, "x")

    with_bot(fake, use)


def test_a_migrated_group_accepts_messages_under_its_new_id(fake: FakeTelegramThread) -> None:
    fake.control.set_chat(-55, trouble="migrated", migrate_to=GROUP)

    async def use(bot: Bot) -> None:
        with pytest.raises(ChatMigrated) as moved:
            await bot.send_message(-55, "x")
        assert (await bot.send_message(moved.value.new_chat_id, "x")).chat_id == GROUP

    with_bot(fake, use)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ({"kind": "error", "code": 502}, NetworkError),
        ({"kind": "cut_before"}, NetworkError),
        ({"kind": "cut_after"}, NetworkError),
        ({"kind": "unauthorized"}, InvalidToken),
        ({"kind": "retry_after_in_400", "seconds": 7}, BadRequest),
    ],
)
def test_a_server_fault_raises_the_librarys_own_error(
    fake: FakeTelegramThread, fault: dict[str, object], error: type[TelegramError]
) -> None:
    fake.control.set_server(faults=[{**fault, "times": 1, "methods": ["sendMessage"]}])

    async def use(bot: Bot) -> None:
        with pytest.raises(error):
            await bot.send_message(42, "x")
        assert await bot.send_message(43, "x")

    with_bot(fake, use)
    struck = fake.control.arrivals()[-2]
    assert struck.acted is (fault["kind"] == "cut_after")


def test_a_stalled_call_acts_and_is_never_answered(fake: FakeTelegramThread) -> None:
    fake.control.set_server(faults=[{"kind": "stall", "times": 1, "methods": ["sendMessage"]}])

    async def use(bot: Bot) -> None:
        with pytest.raises(TimedOut):
            await bot.send_message(42, "x", read_timeout=0.2)

    with_bot(fake, use)
    assert [(a.acted, a.code) for a in fake.control.arrivals()][-1] == (True, None)


def test_a_second_poller_ends_the_first_one_with_a_conflict(fake: FakeTelegramThread) -> None:
    async def use(bot: Bot) -> None:
        async with Bot(TOKEN, base_url=f"{fake.url}/bot") as other:
            first = asyncio.create_task(bot.get_updates(timeout=20))
            await asyncio.to_thread(until, lambda: polling(fake))
            await other.get_updates(timeout=0)
            with pytest.raises(Conflict, match="terminated by other getUpdates request"):
                await first

    with_bot(fake, use)


def polling(fake: FakeTelegramThread) -> bool:
    return any(a.method == "getUpdates" for a in fake.control.arrivals())
