"""The examples of bots that handle updates, run as their first lines say, including one whose worker dies midway."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from tests.acceptance.stage import TOKEN, Stage
from tests.acceptance.updates.post import Post
from tests.processes import ROOT, FloodgateProcess
from tests.waiting import until

BOT_ID = int(TOKEN.partition(":")[0])
EXAMPLES = {"PYTHONPATH": f"{ROOT}:{ROOT / 'examples'}"}


class Play:
    """A stage on which an example runs."""

    def __init__(self, stage: Stage, stack: contextlib.ExitStack) -> None:
        stage.extra |= {"FLOODGATE_UPDATE_PARTITIONS": "2", "FLOODGATE_BOTS": "", "FLOODGATE_BOT_TOKEN": TOKEN}
        self.stage = stage
        self._stack = stack
        self._names = iter(range(100))

    def start(self, *command: str, ready: str) -> FloodgateProcess:
        name = f"{command[0]}-{next(self._names)}"
        env = {**self.stage.env, **EXAMPLES}
        process = FloodgateProcess(*command, env=env, home=self.stage.home, name=name)
        return self._stack.enter_context(process).start(ready)

    def sent(self, chat: int) -> list[str]:
        calls = [call for call in self.stage.control.arrivals() if call.acted and call.method == "sendMessage"]
        return [str(call.params["text"]) for call in calls if int(call.params["chat_id"]) == chat]


@pytest.fixture
def play(stage: Stage) -> Iterator[Play]:
    with contextlib.ExitStack() as stack:
        yield Play(stage, stack)


def command(text: str) -> dict[str, object]:
    return {"text": text, "entities": [{"type": "bot_command", "offset": 0, "length": len(text)}]}


def test_the_echo_bot_echoes(play: Play) -> None:
    play.start("worker", ready="worker ready")
    play.start("worker", "--updates", "echo_bot:application", ready="worker ready")
    play.start("updates", ready="receiver ready")
    play.stage.control.inject_updates(BOT_ID, [{"user": 42, "text": "/start"}, {"user": 42, "text": "good morning"}])
    texts = until(lambda: found if len(found := play.sent(42)) == 2 else None, 30)
    assert texts == ["Hello! Say something, and I will repeat it.", "good morning"]


def test_the_assistant_shows_its_answer_while_it_writes_it(play: Play) -> None:
    play.start("worker", ready="worker ready")
    play.start("worker", "--updates", "assistant_ptb:application", ready="worker ready")
    play.start("updates", ready="receiver ready")
    control = play.stage.control
    control.inject_updates(BOT_ID, [{"user": 42, "text": "why?"}])
    until(lambda: control.shown(BOT_ID, 42).draft, 30)
    (message,) = until(lambda: [m for m in control.shown(BOT_ID, 42).messages if "entities" in m], 30)
    assert message["text"].startswith("You asked\n\nwhy?\n\nA model that runs on your machine")
    assert message["text"].endswith("and always to its end.")
    kinds = ["bold", "blockquote", "bold", "italic", "pre", "text_link"]
    assert [entity["type"] for entity in message["entities"]] == kinds


def test_the_conversation_bot_continues_after_its_worker_dies_between_two_steps(play: Play) -> None:
    """The other worker also knows the messages that the dead one handled meanwhile."""
    play.start("worker", ready="worker ready")
    workers = [
        play.start("worker", "--updates", "conversation_bot:application", ready="worker ready") for _ in range(2)
    ]
    post = Post(play.stage.settings.model_copy(update={"update_partitions": 2}))
    chats = range(60, 66)  # both workers have some of these chats, for any hashes

    def say(text: str, answers: int) -> None:
        for chat in chats:
            what = command(text) if text.startswith("/") else {"text": text}
            where = {"id": chat, "type": "private"}
            sender = {"id": chat, "is_bot": False, "first_name": "Ada"}
            post.arrives(message={"message_id": 1, "date": 1, "from": sender, "chat": where, **what})
        until(lambda: all(len(play.sent(chat)) == answers for chat in chats), 30)

    say("/order", 1)
    say("large", 2)
    workers[0].kill()
    say("Baker Street", 3)
    say("/order", 4)
    newcomer = play.start("worker", "--updates", "conversation_bot:application", ready="worker ready")
    workers[1].kill()
    say("small", 5)
    assert newcomer.running
    for chat in chats:
        assert play.sent(chat) == [
            "Your first pizza! Small or large?",
            "Where to?",
            "A large pizza comes to Baker Street.",
            "Pizza number 2! Small or large?",
            "Where to?",
        ]
    post.close()
