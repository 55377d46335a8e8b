"""python-telegram-bot's own examples, unmodified except for the lines that start them, used as their users would."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from floodgate.fake_telegram.control import Arrived
from tests.acceptance.stage import TOKEN, Stage
from tests.acceptance.updates.examples import write_example
from tests.acceptance.updates.staff import Staff
from tests.waiting import until

BOT_ID = int(TOKEN.partition(":")[0])
USER = 4242
ANSWER_SECONDS = 15.0


class Visitor:
    """A user who sends something and waits for the answer."""

    def __init__(self, stage: Stage, user: int = USER) -> None:
        self._control = stage.control
        self._user = user
        self._read = 0

    def says(self, text: str) -> str:
        self.does({"user": self._user, "text": text})
        return self.reads().params["text"]

    def sends(self, **content: object) -> str:
        """Sends a message other than text."""
        sender = {"id": self._user, "is_bot": False, "first_name": "Ada"}
        chat = {"id": self._user, "type": "private", "first_name": "Ada"}
        self.does({"message": {"from": sender, "chat": chat, **content}})
        return self.reads().params["text"]

    def does(self, update: dict[str, object]) -> None:
        self._control.inject_updates(BOT_ID, [update])

    def reads(self, method: str = "sendMessage") -> Arrived:
        """Waits for the bot's next call of a method."""
        call = until(
            lambda: next((c for c in self._control.arrivals(self._read) if self._is_it(c, method)), None),
            ANSWER_SECONDS,
        )
        self._read = call.seq
        return call

    def _is_it(self, call: Arrived, method: str) -> bool:
        return call.acted and call.method == method


@pytest.fixture
def example(request: pytest.FixtureRequest, stage: Stage, tmp_path: Path) -> Iterator[Visitor]:
    """Runs the example that the test is parametrised with, and a user of it."""
    with Staff(stage, write_example(request.param, tmp_path)) as staff:
        staff.hire()
        yield Visitor(stage)


@pytest.mark.parametrize("example", ["echobot"], indirect=True)
def test_the_echo_bot_greets_helps_and_echoes(example: Visitor) -> None:
    assert example.says("/start").startswith(f'Hi <a href="tg://user?id={USER}">')
    assert example.says("/help") == "Help!"
    assert example.says("one") == "one"
    assert example.says("zwei, трі 🙂") == "zwei, трі 🙂"


@pytest.mark.parametrize("example", ["conversationbot"], indirect=True)
def test_the_conversation_bot_remembers_its_step_and_accepts_a_photo(
    example: Visitor, stage: Stage, tmp_path: Path
) -> None:
    photo = uploaded_photo(stage)
    assert "Are you a boy or a girl?" in example.says("/start")
    assert "send me a photo" in example.says("Other")
    assert "send me your location" in example.sends(photo=photo)
    assert (tmp_path / "user_photo.jpg").stat().st_size > 100
    assert "tell me something about yourself" in example.sends(location={"latitude": 48.2, "longitude": 16.4})
    assert "Thank you!" in example.says("I am a test.")


@pytest.mark.parametrize("example", ["inlinekeyboard"], indirect=True)
def test_the_keyboard_bot_answers_a_press_and_edits_its_message(example: Visitor) -> None:
    example.does({"user": USER, "text": "/start"})
    offered = example.reads()
    keyboard = offered.params["reply_markup"]
    keyboard = json.loads(keyboard) if isinstance(keyboard, str) else keyboard
    assert keyboard["inline_keyboard"][0][1] == {"text": "Option 2", "callback_data": "2"}

    example.does({"user": USER, "callback": "2", "message_id": offered.message_id})

    assert example.reads("answerCallbackQuery").params["callback_query_id"]
    edited = example.reads("editMessageText").params
    assert (edited["text"], int(edited["message_id"])) == ("Selected option: 2", offered.message_id)


def test_the_callback_data_bot_finds_the_data_of_a_button_at_another_worker(stage: Stage, tmp_path: Path) -> None:
    """With its own persistence, a file, it is refused; with the shared one, a press may come to any worker."""
    application = write_example("arbitrarycallbackdatabot", tmp_path)
    refused = stage.floodgate("worker", "--updates", application)
    assert refused.returncode == 2
    assert "uses arbitrary_callback_data, which stays in the memory of one worker" in refused.stderr

    source = tmp_path / "arbitrarycallbackdatabot.py"
    theirs = 'PicklePersistence(filepath="arbitrarycallbackdatabot")'
    text = source.read_text().replace(theirs, "SharedPersistence()")
    source.write_text(f"from floodgate import SharedPersistence\n{text}")
    with Staff(stage, application) as staff:
        staff.hire()
        visitor = Visitor(stage)
        visitor.does({"user": USER, "text": "/start"})
        offered = visitor.reads()
        staff.handlers[0].kill()
        staff.hire(receivers=0)
        visitor.does({"user": USER, "callback": _data_of(offered, 1), "message_id": offered.message_id})
        edited = visitor.reads("editMessageText")
        assert edited.params["text"] == "So far you've selected [2]. Choose the next item:"
        visitor.does({"user": USER, "callback": _data_of(offered, 1), "message_id": offered.message_id})
        assert visitor.reads("editMessageText").params["text"].startswith("Sorry, I could not process this button")


def _data_of(offered: Arrived, row: int) -> str:
    keyboard = offered.params["reply_markup"]
    keyboard = json.loads(keyboard) if isinstance(keyboard, str) else keyboard
    data: str = keyboard["inline_keyboard"][row][0]["callback_data"]
    return data


def uploaded_photo(stage: Stage) -> list[dict[str, object]]:
    """A photo at Telegram, as described in a message."""
    picture = b"\xff\xd8\xff\xe0" + bytes(600) + b"\xff\xd9"
    answer = httpx.post(
        f"{stage.telegram_url}/bot{TOKEN}/sendPhoto", data={"chat_id": "1"}, files={"photo": ("me.jpg", picture)}
    )
    sizes: list[dict[str, object]] = answer.json()["result"]["photo"]
    return sizes
