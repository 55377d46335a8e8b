"""Handler workers as processes: failed starts, stops, kills; plain functions, sends that do not wait, persistence."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from tests.acceptance.stage import TOKEN, Stage
from tests.acceptance.updates.post import Post
from tests.processes import FloodgateProcess
from tests.waiting import until

HEAD = f"""
import asyncio, os, pathlib
from telegram.ext import Application, CommandHandler, ConversationHandler, MessageHandler, PicklePersistence, filters
builder = Application.builder().token({TOKEN!r})
"""
TAIL = """
application = builder.build()
application.add_handler(MessageHandler(filters.TEXT, answer))
"""
USER = 77


class Workshop:
    """A stage whose handler workers run modules written by a test."""

    def __init__(self, stage: Stage, stack: contextlib.ExitStack) -> None:
        self.stage = stage
        self.post = Post(stage.settings.model_copy(update={"update_partitions": 2}))
        self._stack = stack
        self._workers = 0
        stack.callback(self.post.close)

    def sent(self) -> list[str]:
        """Texts of messages that took effect, in order of arrival."""
        calls = [call for call in self.stage.control.arrivals() if call.acted and call.method == "sendMessage"]
        return [str(call.params["text"]) for call in calls]

    def handler(self, module: str, name: str = "application", **env: str) -> FloodgateProcess:
        (self.stage.home / "their_bot.py").write_text(module)
        self._workers += 1
        environment = {**self.stage.env, **env}
        process = FloodgateProcess(
            "worker",
            "--updates",
            f"their_bot:{name}",
            env=environment,
            home=self.stage.home,
            name=f"handler-{self._workers}",
        )
        return self._stack.enter_context(process).start("worker ready")


@pytest.fixture
def workshop(stage: Stage) -> Iterator[Workshop]:
    stage.extra["FLOODGATE_UPDATE_PARTITIONS"] = "2"
    with contextlib.ExitStack() as stack:
        yield Workshop(stage, stack)


def test_a_wrong_module_path_gives_one_sentence_and_exit_code_2(stage: Stage) -> None:
    ended = stage.floodgate("worker", "--updates", "nowhere:application")
    assert ended.returncode == 2
    assert ended.stderr.strip().endswith(
        f"There is no module 'nowhere' in {stage.home} or on the Python path (PYTHONPATH)."
    )
    assert "Traceback" not in ended.stderr


def test_a_refused_token_gives_one_sentence_without_the_token(stage: Stage) -> None:
    stage.control.set_server(faults=[{"kind": "unauthorized", "methods": ["getMe"]}])
    (stage.home / "their_bot.py").write_text(HEAD + "application = builder.build()")
    ended = stage.floodgate("worker", "--updates", "their_bot:application")
    assert ended.returncode == 2, ended.stderr
    assert "Telegram refuses the token of their_bot:application" in ended.stderr
    assert TOKEN not in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_plain_function_handles_updates_with_a_client(workshop: Workshop) -> None:
    workshop.stage.worker()
    workshop.handler(
        """
from floodgate import AsyncClient, Update, on_update

@on_update
async def answer(update: Update, client: AsyncClient) -> None:
    message = update.body["message"]
    job = await client.send_message(chat_id=message["chat"]["id"], text=f"{update.bot} heard {message['text']}")
    sent = await client.result(job)
    await client.send_message(chat_id=update.chat, text=f"as message {sent['message_id']}")
""",
        "answer",
    )
    workshop.post.says(USER, "hello")
    first, second = until(lambda: found if len(found := workshop.sent()) == 2 else None)
    assert first == "default heard hello"
    assert second.startswith("as message ")


def test_a_send_that_does_not_wait_returns_before_it_is_sent(workshop: Workshop) -> None:
    """There is no send worker yet, and the handler has ended."""
    module = """
async def answer(update, context):
    sent = await update.message.reply_text("later")
    pathlib.Path("returned").write_text(f"{sent.message_id} {sent.chat.id} {sent.text}")
"""
    workshop.handler(HEAD + module + TAIL, FLOODGATE_UPDATES__REPLIES="enqueued")
    workshop.post.says(USER, "hello")
    returned = workshop.stage.home / "returned"
    until(returned.exists)
    assert until(returned.read_text) == f"0 {USER} later"
    assert workshop.sent() == []
    workshop.stage.worker()
    until(lambda: workshop.sent() == ["later"])


def test_a_result_timeout_raises_but_the_message_is_still_sent(workshop: Workshop) -> None:
    module = """
async def answer(update, context):
    try:
        await update.message.reply_text("late")
    except Exception as error:
        pathlib.Path("raised").write_text(f"{type(error).__name__}: {error}")
"""
    workshop.handler(HEAD + module + TAIL, FLOODGATE_UPDATES__REPLY_SECONDS="0.5")
    workshop.post.says(USER, "hello")
    raised = workshop.stage.home / "raised"
    until(raised.exists)
    text = until(raised.read_text)
    assert text.startswith("TimedOut: Job reply-") and "is safe and will be sent" in text
    workshop.stage.worker()
    until(lambda: workshop.sent() == ["late"])


LOSES_ITS_LIFE = """
async def answer(update, context):
    begun = pathlib.Path(f"begun-{update.update_id}")
    again = begun.exists()
    await update.message.reply_text("working on it")
    begun.write_text("x")
    if not again:
        await asyncio.sleep(60)
    await update.message.reply_text("done")
"""


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_updates_of_an_ended_worker_are_handled_by_the_next_and_their_messages_sent_once(
    workshop: Workshop, end: str
) -> None:
    workshop.stage.worker()
    module = HEAD + LOSES_ITS_LIFE + TAIL
    quick = {"FLOODGATE_SHUTDOWN_SECONDS": "2", "FLOODGATE_CALL_TIMEOUT_SECONDS": "1"}
    first = workshop.handler(module, **quick)
    update_id = workshop.post.says(USER, "hello")
    until((workshop.stage.home / f"begun-{update_id}").exists)
    second = workshop.handler(module)
    (workshop.stage.home / f"begun-{update_id + 1}").write_text("x")  # makes the next one fast
    workshop.post.says(USER, "next")
    if end == "kill":
        first.kill()
    else:
        assert first.stop() == 0
    sent = until(lambda: found if len(found := workshop.sent()) == 4 else None, 30)
    assert sent == ["working on it", "done", "working on it", "done"]
    assert second.running


STOPS = """
async def answer(update, context):
    if update.message.text == "stop":
        context.application.stop_running()
    await update.message.reply_text(update.message.text)
"""


def test_an_application_that_stops_running_ends_its_worker_in_order_and_says_why(workshop: Workshop) -> None:
    workshop.stage.worker()
    first = workshop.handler(HEAD + STOPS + TAIL)
    for text in ("stop", "behind"):
        workshop.post.says(USER, text)
    assert first.wait() == 5
    assert first.said("their_bot:application stopped this worker: it called stop_running() or stopped the event loop")
    assert workshop.stage.floodgate("dead-letters", "list", "--json").stdout.strip() == "[]"
    workshop.handler(HEAD + STOPS + TAIL)
    assert until(lambda: found if len(found := workshop.sent()) == 2 else None, 30) == ["stop", "behind"]


def test_a_worker_warns_about_the_updates_that_its_handlers_need_and_the_receiver_does_not_ask_for(
    workshop: Workshop,
) -> None:
    module = """
from telegram.ext import ChatMemberHandler, MessageReactionHandler
async def answer(update, context): ...
application = builder.build()
application.add_handler(ChatMemberHandler(answer, ChatMemberHandler.CHAT_MEMBER))
application.add_handler(MessageReactionHandler(answer))
"""
    worker = workshop.handler(HEAD + module, FLOODGATE_UPDATES__ALLOWED='["message", "chat_member"]')
    line = worker.said("which the receiver does not ask Telegram for")
    assert "their_bot:application handles message_reaction, message_reaction_count, which" in line


def test_a_handlers_changes_are_persisted_before_its_update_is_acknowledged(workshop: Workshop) -> None:
    """The library alone would write it a minute later."""
    workshop.stage.worker()
    module = """
builder = builder.persistence(PicklePersistence("memory.pickle"))
async def answer(update, context):
    context.chat_data["seen"] = context.chat_data.get("seen", 0) + 1
    await update.message.reply_text(f"seen {context.chat_data['seen']}")
"""
    first = workshop.handler(HEAD + module + TAIL)
    workshop.post.says(USER, "one")
    until(lambda: workshop.sent() == ["seen 1"])
    until((workshop.stage.home / "memory.pickle").exists)
    first.kill()
    workshop.handler(HEAD + module + TAIL)
    workshop.post.says(USER, "two")
    until(lambda: workshop.sent() == ["seen 1", "seen 2"], 30)
