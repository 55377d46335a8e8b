"""Streams on real processes: drafts in private chats, edits in groups, and what kills leave."""

from __future__ import annotations

import asyncio
import threading

from floodgate.fake_telegram.control import Screen
from floodgate.producer.async_client import AsyncClient
from tests.acceptance import streaming_program
from tests.acceptance.stage import TOKEN, Stage
from tests.acceptance.streaming_program import NOTE
from tests.processes import FloodgateProcess
from tests.waiting import until

USER, GROUP, OTHER_GROUP = 42, -1000000000042, -1000000000043
WORDS = [f"word{number}" for number in range(80)]
BOT_ID = int(TOKEN.partition(":")[0])
# So that the job of a worker that was killed is taken over soon.
SHORT_LEASE = {"FLOODGATE_CALL_TIMEOUT_SECONDS": "3", "FLOODGATE_LEASE_MARGIN_SECONDS": "1"}


def shown(stage: Stage, chat: int) -> Screen:
    return stage.control.shown(BOT_ID, chat)


def texts(stage: Stage, chat: int) -> list[str]:
    return [str(message["text"]) for message in shown(stage, chat).messages]


def test_streams_survive_the_worker_and_end_with_the_whole_text(stage: Stage) -> None:
    worker = stage.worker(**SHORT_LEASE)
    halfway = threading.Event()

    async def write() -> None:
        async with AsyncClient(stage.settings) as client, client.stream(USER) as one, client.stream(GROUP) as two:
            for number, word in enumerate(WORDS):
                await one.append(f"{word} ")
                await two.append(f"{word} ")
                if number == len(WORDS) // 2:
                    await asyncio.to_thread(until, lambda: shown(stage, USER).draft and texts(stage, GROUP), 30)
                    halfway.set()
                await asyncio.sleep(0.05)
            (message,) = await one.result(timeout=60)
            assert message["text"] == " ".join(WORDS)
            assert len(await two.result(timeout=60)) == 1

    def write_synchronously() -> None:
        with stage.client().stream(OTHER_GROUP) as message:
            for word in WORDS:
                message.append(f"{word} ")

    writers = [threading.Thread(target=asyncio.run, args=(write(),)), threading.Thread(target=write_synchronously)]
    for writer in writers:
        writer.start()
    assert halfway.wait(60)
    worker.kill()
    stage.worker(**SHORT_LEASE)
    for writer in writers:
        writer.join(90)
    for chat in (USER, GROUP, OTHER_GROUP):
        until(lambda chat=chat: texts(stage, chat) == [" ".join(WORDS)], 60)  # type: ignore[misc]
    assert shown(stage, USER).draft is None


def test_a_program_that_is_killed_leaves_its_text_and_says_so(stage: Stage) -> None:
    stage.worker()
    program = FloodgateProcess(module=streaming_program.__name__, env=stage.env, home=stage.home, name="program")
    stage.keep(program).start("appended 60")
    until(lambda: shown(stage, streaming_program.USER).draft and texts(stage, streaming_program.GROUP), 30)
    program.kill()
    for chat in (streaming_program.USER, streaming_program.GROUP):
        left = until(lambda chat=chat: [text for text in texts(stage, chat) if text.endswith(NOTE)], 60)  # type: ignore[misc]
        assert len(left) == len(texts(stage, chat)) == 1
        text = left[0].removesuffix(NOTE)
        assert text and " ".join(map(str, range(1_000))).startswith(text), "some seconds old, and whole until then"
