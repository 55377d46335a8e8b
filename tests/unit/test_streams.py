"""Streams in virtual time, on a simulated pipeline."""

from __future__ import annotations

import asyncio
import itertools
import random
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from floodgate.broker.errors import ClosedError, InvalidParamsError, JobError, NotConnectedError
from floodgate.broker.messages.job import Priority
from floodgate.broker.settings.model import Settings
from floodgate.producer.core import Composer
from floodgate.producer.streaming.message import AsyncMessageStream
from floodgate.producer.streaming.streams import Streams
from floodgate.producer.streaming.turns import FIRST_DRAFTS, PROMPT
from floodgate.producer.streaming.window import SMALLEST, RefreshWindow
from floodgate.producer.streaming.writer import MOST_TEXT
from floodgate.testing import AsyncRecordingClient, RecordingClient
from floodgate.updates.streams import stream_reply
from tests import virtual_loop
from tests.simulated_pipeline import Shown, SimulatedPipeline

USER = 42
GROUP = -1000000000042
SETTINGS = Settings.model_construct(partitions=16, bots={}, bot_token=None)

Play = Callable[["Theatre"], Awaitable[None]]


class Theatre:
    """A client's streams on a simulated pipeline."""

    def __init__(self, **options: Any) -> None:
        self.pipeline = SimulatedPipeline(**options)
        self.streams = Streams(SETTINGS, Composer(SETTINGS), self.pipeline)

    def stream(self, chat_id: int | str, **options: Any) -> AsyncMessageStream:
        return AsyncMessageStream(self.streams.request(chat_id, options), self.streams.begin)

    async def write(self, message: AsyncMessageStream, words: int = 50, seconds: float = 0.1) -> None:
        """Appends words, one at a time."""
        for number in range(words):
            await message.append(f"{number} ")
            await asyncio.sleep(seconds)

    def shown(self, method: str = "") -> list[Shown]:
        return [call for call in self.pipeline.shown if method in ("", call.method)]


def play(scene: Play, **options: Any) -> Theatre:
    """Plays a scene to its end, and until nothing is on the way any more."""

    async def run() -> Theatre:
        theatre = Theatre(**options)
        await scene(theatre)
        await asyncio.sleep(100)
        return theatre

    return virtual_loop.run(run())


def kill_streams() -> None:
    """Ends the tasks of streams, as the death of their process does."""
    for task in asyncio.all_tasks():
        if task.get_name().startswith("floodgate-stream"):
            task.cancel()


def text_of(words: int) -> str:
    return " ".join(map(str, range(words)))


def test_a_group_sees_the_first_words_at_once_then_edits_of_one_message_and_the_whole_text_last() -> None:
    async def scene(theatre: Theatre) -> None:
        async with theatre.stream(GROUP) as message:
            await theatre.write(message, words=100)
        (telegrams,) = await message.result()
        assert telegrams == {"message_id": 1, "text": text_of(100)}

    calls = [call for call in play(scene).shown() if call.method != "sendChatAction"]
    assert [call.method for call in calls[:2]] == ["sendMessage", "editMessageText"]
    assert (calls[0].text, calls[0].priority) == ("0", "interactive")
    assert calls[0].at < 0.2
    assert {call.params["message_id"] for call in calls[1:]} == {1}
    assert {call.priority for call in calls[1:-1]} == {"bulk"}
    assert (calls[-1].text, calls[-1].priority) == (text_of(100), "interactive")
    assert sorted(calls, key=lambda call: len(call.text)) == calls


def test_a_private_chat_sees_drafts_and_then_one_message() -> None:
    async def scene(theatre: Theatre) -> None:
        async with theatre.stream(USER, reply_markup={"inline_keyboard": []}) as message:
            await theatre.write(message)

    theatre = play(scene)
    drafts, (sent,) = theatre.shown("sendMessageDraft"), theatre.shown("sendMessage")
    assert drafts[0].at < 0.2
    assert {call.params["draft_id"] for call in drafts} == {drafts[0].params["draft_id"]}
    assert all(later.at - earlier.at > 0.7 for earlier, later in itertools.pairwise(drafts))
    assert len(drafts) >= 6
    assert (sent.text, sent.params["reply_markup"]) == (text_of(50), {"inline_keyboard": []})
    assert max(call.at for call in theatre.shown()) == sent.at


def test_typing_is_shown_until_the_first_words() -> None:
    async def scene(theatre: Theatre) -> None:
        async with theatre.stream(USER, message_thread_id=5) as message:
            await asyncio.sleep(10)
            await theatre.write(message)

    actions = play(scene).shown("sendChatAction")
    assert [round(call.at) for call in actions] == [0, 5, 9]
    assert actions[0].params == {"chat_id": USER, "action": "typing", "message_thread_id": 5}


def test_a_silent_stream_renews_its_draft_before_telegram_drops_it() -> None:
    async def scene(theatre: Theatre) -> None:
        async with theatre.stream(USER) as message:
            await message.append("I think")
            await asyncio.sleep(45)

    assert [round(call.at, -1) for call in play(scene).shown("sendMessageDraft")] == [0, 20, 40]


def test_drafts_that_telegram_refuses_give_way_to_edits_in_this_chat_also_next_time() -> None:
    async def scene(theatre: Theatre) -> None:
        theatre.pipeline.refusals["sendMessageDraft"] = "Bad Request: TEXTDRAFT_PEER_INVALID"
        for _ in range(2):
            async with theatre.stream(USER) as message:
                await theatre.write(message)

    theatre = play(scene)
    assert [job.method for job in theatre.pipeline.enqueued].count("sendMessageDraft") == 1
    assert len(theatre.shown("sendMessage")) == 2
    assert len(theatre.shown("editMessageText")) > 4


@pytest.mark.parametrize("options", [{"business_connection_id": "b"}, {"drafts": False}])
def test_no_drafts_where_they_cannot_be_or_are_not_wanted(options: dict[str, Any]) -> None:
    async def scene(theatre: Theatre) -> None:
        async with theatre.stream(USER, **options) as message:
            await theatre.write(message)

    theatre = play(scene)
    assert theatre.shown("sendMessageDraft") == []
    assert theatre.shown("editMessageText")[-1].text == text_of(50)


@pytest.mark.parametrize("chat", [USER, GROUP])
def test_a_text_longer_than_a_message_goes_on_in_the_next(chat: int) -> None:
    words = [f"word{number}" for number in range(1000)]

    async def scene(theatre: Theatre) -> None:
        options: dict[str, Any] = {"reply_parameters": {"message_id": 7}, "reply_markup": {"inline_keyboard": []}}
        async with theatre.stream(chat, **options) as message:
            for word in words:
                await message.append(f"{word} ")
                await asyncio.sleep(0.05)
        assert len(await message.result()) == 2

    theatre = play(scene)
    ends: dict[Any, Shown] = {}
    sent = 0
    for call in theatre.shown():
        sent += call.method == "sendMessage"
        if call.method in ("sendMessage", "editMessageText"):
            ends[call.params.get("message_id", sent)] = call
    first, second = ends.values()
    assert f"{first.text} {second.text}".split() == words
    sends = theatre.shown("sendMessage")
    assert ["reply_parameters" in call.params for call in sends] == [True, False]
    assert ["reply_markup" in call.params for call in (first, second)] == [False, True]


def test_texts_that_outgrow_their_messages_at_the_same_time_cost_each_chat_one_call_and_keep_their_turns() -> None:
    """20 chats at 2.94 calls a second: each has its turn every 6.8 seconds."""
    chats = [1000 + number for number in range(20)]

    async def write(theatre: Theatre, chat: int) -> None:
        async with theatre.stream(chat, drafts=False) as message:
            for number in range(380):
                await message.append(f"{number:03} {'a' * 26}{'.' if number % 2 else ''} ")
                await asyncio.sleep(0.2)

    async def scene(theatre: Theatre) -> None:
        await asyncio.gather(*(write(theatre, chat) for chat in chats))

    theatre = play(scene, per_second=2.94)
    for chat in chats:
        calls = [call for call in theatre.shown() if call.chat == str(chat) and call.text]
        first, *later = [call for call in calls if call.method == "sendMessage"]
        assert first.priority == Priority.INTERACTIVE
        assert len(later) >= 2
        texts: dict[int, str] = {}
        for before, call in itertools.pairwise(calls):
            if call.method == "sendMessage":
                assert before.text.endswith(".")
                texts[len(texts)] = before.text
            else:
                assert call.text.startswith(before.text)
        texts[len(texts)] = calls[-1].text
        assert " ".join(texts.values()).split()[::2] == [f"{number:03}" for number in range(380)]
        steady = [call for call in calls if 14 < call.at < 76]
        assert {call.priority for call in steady} == {Priority.BULK}
        shown_tokens = [(int(re.findall(r"\d+", call.text)[-1]), call.enqueued_at / 0.2) for call in steady]
        assert all(shown > written - 5 for shown, written in shown_tokens), "no call shows only a part of the text"
        assert all(after.at - call.at < 6.8 + 2 for call, after in itertools.pairwise(steady))


def test_a_refresh_that_waits_when_the_text_ends_is_withdrawn_and_costs_no_call() -> None:
    async def scene(theatre: Theatre) -> None:
        async with theatre.stream(GROUP) as message:
            await message.append("one")
            await asyncio.sleep(4)
            theatre.pipeline.running.clear()
            await message.append(" two")
            await asyncio.sleep(1)
            await message.append(" three")
        theatre.pipeline.running.set()

    theatre = play(scene)
    assert [job.params["text"] for job in theatre.pipeline.withdrawn] == ["one two"]
    assert [call.text for call in theatre.shown() if call.text] == ["one", "one two three"]


def test_first_words_that_still_wait_when_the_text_ends_are_replaced_by_it() -> None:
    async def scene(theatre: Theatre) -> None:
        theatre.pipeline.running.clear()
        async with theatre.stream(GROUP) as message:
            await message.append("one")
            await asyncio.sleep(1)
            await message.append(" two")
        theatre.pipeline.running.set()

    assert [call.text for call in play(scene).shown("sendMessage")] == ["one two"]


def test_the_final_text_joins_the_line_behind_a_refresh_that_cannot_be_withdrawn() -> None:
    async def scene(theatre: Theatre) -> None:
        async with theatre.stream(GROUP) as message:
            await message.append("one")
            await asyncio.sleep(4)
            theatre.pipeline.running.clear()
            await message.append(" two")
            await asyncio.sleep(1)
            await message.append(" three")
            theatre.pipeline.store_away = True
        theatre.pipeline.running.set()

    refresh, final = [job for job in play(scene).pipeline.enqueued if job.method == "editMessageText"]
    assert (refresh.priority, refresh.coalesce) == (final.priority, final.coalesce)
    assert (refresh.final, final.final) == (False, True)


def test_an_exception_leaves_the_text_and_says_so_if_asked() -> None:
    async def scene(theatre: Theatre) -> None:
        for on_error in ("… (the model failed)", None):
            with suppress(ZeroDivisionError):
                async with theatre.stream(USER, on_error=on_error) as message:
                    await message.append("The answer is")
                    raise ZeroDivisionError

    texts = [call.text for call in play(scene).shown("sendMessage")]
    assert texts == ["The answer is… (the model failed)", "The answer is"]


def test_an_exception_before_the_first_word_is_said_on_its_own() -> None:
    async def scene(theatre: Theatre) -> None:
        with suppress(ZeroDivisionError):
            async with theatre.stream(USER, on_error=" Sorry."):
                raise ZeroDivisionError

    assert [call.text for call in play(scene).shown("sendMessage")] == ["Sorry."]


def test_a_stream_without_text_sends_nothing() -> None:
    async def scene(theatre: Theatre) -> None:
        async with theatre.stream(USER) as message:
            await message.append(" \n")
        assert await message.finish() == ()
        assert await message.result() == []

    assert play(scene).shown("sendMessage") == []


@pytest.mark.parametrize(("chat", "method"), [(USER, "sendMessage"), (GROUP, "editMessageText")])
def test_a_program_that_dies_leaves_the_text_and_says_so_if_asked(chat: int, method: str) -> None:
    async def scene(theatre: Theatre) -> None:
        message = await theatre.stream(chat, interrupted=" (interrupted)").__aenter__()
        await theatre.write(message, words=300)
        kill_streams()

    theatre = play(scene)
    last = max(theatre.shown(), key=lambda call: call.at)
    assert last.method == method
    assert last.text.endswith(" (interrupted)")
    assert len(last.text) > len(text_of(240))
    assert [call for call in theatre.shown() if "interrupted" in call.text] == [last]


@pytest.mark.parametrize("chat", [USER, GROUP])
def test_a_stream_that_ends_leaves_no_notice_of_an_interruption(chat: int) -> None:
    async def scene(theatre: Theatre) -> None:
        async with theatre.stream(chat, interrupted=" (interrupted)", interrupted_after=8) as message:
            await theatre.write(message)
            await asyncio.sleep(60)

    theatre = play(scene)
    assert [call for call in theatre.shown() if "interrupted" in call.text] == []
    notices = [job for job in theatre.pipeline.enqueued if job.not_before_ms]
    assert len(notices) > 10
    assert {job.id for job in notices} <= {job.id for job in theatre.pipeline.withdrawn}


@pytest.mark.parametrize("chat", [USER, GROUP])
def test_a_second_stream_with_the_same_dedupe_key_continues_the_messages_of_the_first(chat: int) -> None:
    options = {"dedupe_key": "k", "interrupted": " (interrupted)"}

    async def scene(theatre: Theatre) -> None:
        with suppress(ZeroDivisionError):
            async with theatre.stream(chat, **options) as message:
                await theatre.write(message, words=1500, seconds=0.01)
                raise ZeroDivisionError
        async with theatre.stream(chat, **options) as message:
            await theatre.write(message, words=1600, seconds=0.01)

    theatre = play(scene)
    assert len(theatre.shown("sendMessage")) == 2
    ends = {call.params["message_id"]: call.text for call in theatre.shown("editMessageText")}
    assert " ".join(ends[number] for number in sorted(ends)) == text_of(1600)


@pytest.mark.parametrize("business", [{}, {"business_connection_id": "b"}])
def test_a_second_stream_deletes_the_messages_that_only_the_first_needed(business: dict[str, Any]) -> None:
    async def scene(theatre: Theatre) -> None:
        for words in (1100, 1000, 1000, 1100):
            async with theatre.stream(GROUP, dedupe_key="k", **business) as message:
                await theatre.write(message, words=words, seconds=0.01)
            await asyncio.sleep(10)
        assert [sent["message_id"] for sent in await message.result()] == [1, 3]

    jobs = [job for job in play(scene).pipeline.enqueued if job.method.startswith("delete")]
    expected = {**business, "message_ids": [2]} if business else {"chat_id": GROUP, "message_id": 2}
    assert [job.params for job in jobs] == [expected]


def test_a_second_stream_takes_over_from_one_that_was_killed() -> None:
    async def scene(theatre: Theatre) -> None:
        options = {"dedupe_key": "k", "interrupted": " (interrupted)"}
        message = await theatre.stream(GROUP, **options).__aenter__()
        await theatre.write(message)
        kill_streams()
        async with theatre.stream(GROUP, **options) as message:
            await theatre.write(message, words=60)

    theatre = play(scene)
    assert len(theatre.shown("sendMessage")) == 1
    assert max(theatre.shown(), key=lambda call: call.at).text == text_of(60)


def test_a_message_that_somebody_deleted_is_sent_anew() -> None:
    async def scene(theatre: Theatre) -> None:
        async with theatre.stream(GROUP) as message:
            await theatre.write(message, words=20)
            theatre.pipeline.refusals["editMessageText"] = "Bad Request: message to edit not found"
            await theatre.write(message, words=60)

    assert len(play(scene).shown("sendMessage")) > 1


def test_while_rabbitmq_is_away_the_text_grows_and_only_its_end_raises() -> None:
    async def scene(theatre: Theatre) -> None:
        theatre.pipeline.away = NotConnectedError("RabbitMQ is away.")
        with pytest.raises(NotConnectedError):
            async with theatre.stream(GROUP) as message:
                await theatre.write(message)
        theatre.pipeline.away = None

    assert play(scene).shown() == []


def test_a_stream_goes_on_when_rabbitmq_is_back() -> None:
    async def scene(theatre: Theatre) -> None:
        async with theatre.stream(GROUP) as message:
            theatre.pipeline.away = NotConnectedError("RabbitMQ is away.")
            await theatre.write(message, words=200)
            theatre.pipeline.away = None
            await theatre.write(message, words=400)

    assert len(play(scene).shown("editMessageText")) > 3


def test_the_text_is_bounded_and_the_rest_of_it_stays() -> None:
    async def scene(theatre: Theatre) -> None:
        async with theatre.stream(USER) as message:
            await message.append("x" * MOST_TEXT)
            with pytest.raises(InvalidParamsError, match="more than 65536 characters: begin another stream"):
                await message.append("y")
        with pytest.raises(ClosedError, match="has ended"):
            await message.append("z")

    assert sum(len(call.text) for call in play(scene).shown("sendMessage")) == MOST_TEXT


def test_many_chats_share_the_rate_evenly_and_delay_no_person() -> None:
    """60 chats at 8.8 calls a second: each has its turn every 6.8 seconds, as 200 chats do at 29.4."""
    chats, delays = 60, []

    async def write(theatre: Theatre, number: int) -> None:
        async with theatre.stream(1000 + number, drafts=False) as message:
            await theatre.write(message, words=120, seconds=0.3)

    async def ask(theatre: Theatre) -> None:
        for number in range(60):
            await asyncio.sleep(0.6)
            job = theatre.streams._composer.job("sendMessage", {"chat_id": 7000 + number, "text": "hi"})
            began = asyncio.get_running_loop().time()
            end = theatre.pipeline.watch(job)
            await theatre.pipeline.enqueue(job)
            await end.record
            delays.append(asyncio.get_running_loop().time() - began)

    async def scene(theatre: Theatre) -> None:
        await asyncio.gather(*(write(theatre, number) for number in range(chats)), ask(theatre))

    shown = play(scene, partitions=5, per_second=8.82).shown("editMessageText")
    steady = [call for call in shown if 15 < call.at < 34]
    assert len(steady) > 0.9 * 19 * 8.82 - 60 * 19 / 36  # but for the persons' messages
    per_chat = [sum(call.chat == str(1000 + number) for call in shown) for number in range(chats)]
    assert max(per_chat) - min(per_chat) <= 2
    ages = sorted(call.at - call.enqueued_at for call in steady)
    assert ages[len(ages) // 2] < 1.5
    assert sorted(delays)[-2] < 1.5  # at 29.4 a second, a third of it


def test_first_words_in_drafts_and_in_messages_do_not_wait_for_each_other() -> None:
    """Drafts cost the bot's limit nothing. Each call takes a second, so messages would stand behind many drafts."""

    async def write(theatre: Theatre, chat: int) -> None:
        async with theatre.stream(chat) as message:
            await theatre.write(message, words=20, seconds=0.5)

    async def scene(theatre: Theatre) -> None:
        chats = [*(1000 + number for number in range(96)), *(GROUP - number for number in range(4))]
        await asyncio.gather(*(write(theatre, chat) for chat in chats))

    theatre = play(scene, partitions=100, call_seconds=(1.0, 1.0))
    first_words: dict[str, float] = {}
    for call in theatre.shown():
        if call.method != "sendChatAction":
            first_words.setdefault(call.chat, call.at)
    assert max(at for chat, at in first_words.items() if chat.startswith("-")) < 2.5
    assert max(first_words.values()) < 96 / FIRST_DRAFTS + 1.5


def test_however_many_texts_outgrow_their_message_at_once_few_messages_are_ahead_of_a_person() -> None:
    async def write(theatre: Theatre, chat: int) -> None:
        async with theatre.stream(chat) as message:
            for number in range(60):
                await message.append(f"{number} {'a' * 98} ")
                await asyncio.sleep(0.1)

    async def scene(theatre: Theatre) -> None:
        await asyncio.gather(*(write(theatre, 1000 + number) for number in range(40)))

    sent = [call for call in play(scene).shown("sendMessage") if call.priority == Priority.INTERACTIVE]
    assert max(sum(other.enqueued_at <= call.enqueued_at < other.at for other in sent) for call in sent) <= PROMPT


def test_the_window_finds_how_many_refreshes_keep_the_bot_busy() -> None:
    window = RefreshWindow()
    for _ in range(300):
        window.ended(max(0.1, window.size / 29.4), streams=200)
    assert 12 < window.size < 18
    for _ in range(100):
        window.ended(5.0, streams=200)
    assert window.size == SMALLEST
    for _ in range(300):
        window.ended(0.1, streams=6)
    assert window.size == 6


def test_the_windows_of_two_processes_become_proportional_to_their_streams() -> None:
    many, few = RefreshWindow(), RefreshWindow()
    many.size, few.size = 10, 50
    chance = random.Random(1)
    for _ in range(5000):
        window, streams = (many, 150) if chance.random() < many.size / (many.size + few.size) else (few, 50)
        window.ended((many.size + few.size) / 60, streams)
    assert 2 < many.size / few.size < 4.5


async def _request(options: dict[str, Any]) -> None:
    Theatre().streams.request(USER, options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"parse_mode": "HTML"}, "no option 'parse_mode'. Use formatting"),
        ({"reply_markpu": {}}, "Did you mean 'reply_markup'"),
        ({"formatting": "html"}, "formatting is 'html': use plain"),
        ({"priority": "high"}, "'high' is not a valid Priority"),
        ({"on_error": "x" * 201}, "on_error must be text of at most 200 characters"),
        ({"interrupted_after": 1}, "between 4 seconds and an hour"),
        ({"dedupe_key": ""}, "dedupe_key must be text of 1 to 200 characters"),
    ],
)
def test_a_wrong_option_is_refused_before_the_stream_begins(options: dict[str, Any], message: str) -> None:
    with pytest.raises(JobError, match=message):
        asyncio.run(_request(options))


def test_a_recording_client_records_the_final_text() -> None:
    client = RecordingClient()
    with client.stream(42, formatting="HTML", on_error=" (failed)") as message:
        message.append("<b>Hel")
        message.append("lo</b>")
    assert client.texts == ["Hello"]
    assert message.result() == [client.result(job) for job in message.finish()]
    with suppress(ZeroDivisionError), client.stream(42, on_error=" (failed)") as message:
        message.append("Hello")
        raise ZeroDivisionError
    assert client.texts == ["Hello", "Hello (failed)"]


def test_a_reply_goes_where_the_message_came_from() -> None:
    place = {"message_id": 7, "message_thread_id": 3, "is_topic_message": True, "business_connection_id": "b"}

    async def scene() -> AsyncRecordingClient:
        client = AsyncRecordingClient()
        for chat in ({"id": GROUP, "type": "supergroup"}, {"id": USER, "type": "private"}):
            async with stream_reply({**place, "chat": chat}, client) as message:  # type: ignore[arg-type]
                await message.append("Hello")
        return client

    in_group, in_private = asyncio.run(scene()).calls("sendMessage")
    expected = {"text": "Hello", "message_thread_id": 3, "business_connection_id": "b"}
    assert in_private == {"chat_id": USER, **expected}
    reply = {"message_id": 7, "allow_sending_without_reply": True}
    assert in_group == {"chat_id": GROUP, "reply_parameters": reply, **expected}
    with pytest.raises(InvalidParamsError, match="has no client"):
        stream_reply({**place, "chat": {"id": USER, "type": "private"}})
