"""``module:name``: valid targets, and one sentence for each invalid one."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from telegram.ext import Application

from floodgate.broker.errors import SettingsError
from floodgate.broker.settings.model import Settings
from floodgate.updates.compose import assign
from floodgate.updates.function import OnUpdate, on_update
from floodgate.updates.target import load_target

TOKEN = "100200300:" + "A" * 35
APPLICATION = f"from telegram.ext import Application\nbuild = lambda: Application.builder().token('{TOKEN}').build()\n"
Write = Callable[[str], None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes the module `their_bot` into the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def module(text: str) -> None:
        (tmp_path / "their_bot.py").write_text(text)

    yield module
    sys.modules.pop("their_bot", None)


@pytest.mark.parametrize("name", ["application", "shop.application", "build"])
def test_the_target_can_be_an_application_an_attribute_or_a_factory(write: Write, name: str) -> None:
    write(APPLICATION + "application = build()\nclass shop:\n    application = application\n")
    assert isinstance(load_target(f"their_bot:{name}"), Application)


def test_the_target_can_be_a_decorated_function(write: Write) -> None:
    write("from floodgate import on_update\n@on_update\nasync def answer(update, client): ...\n")
    assert isinstance(load_target("their_bot:answer"), OnUpdate)


@pytest.mark.parametrize("path", ["", "their_bot", "their_bot:", ":application"])
def test_a_target_without_module_and_name_is_refused_with_the_expected_form(path: str) -> None:
    with pytest.raises(SettingsError, match=r"write module:name, as in myapp\.bot:application"):
        load_target(path)


WRONG = {
    "no such module": (None, "There is no module 'their_bot' in {here} or on the Python path (PYTHONPATH)."),
    "no such name": (
        APPLICATION + "bot = build()",
        "The module 'their_bot' has no 'application' (from their_bot:application). It has bot.",
    ),
    "needs what is not there": (
        "\nimport nowhere",
        "The module 'their_bot' needs 'nowhere', which is not installed. ({here}/their_bot.py:2)",
    ),
    "fails": (
        "\n\n1 / 0",
        "The module 'their_bot' cannot be imported: ZeroDivisionError: division by zero. ({here}/their_bot.py:3)",
    ),
    "is no Python": ("def", "The module 'their_bot' cannot be imported: SyntaxError: invalid syntax"),
    "a number": (
        "application = 7",
        "their_bot:application is of type int: give a python-telegram-bot Application, or a function with @on_update.",
    ),
    "nothing": (
        "application = None",
        "their_bot:application is nothing: give a python-telegram-bot Application, or a function with @on_update.",
    ),
    "a function without its mark": (
        "async def application(update, client): ...",
        "their_bot:application is the function application, without @on_update: give",
    ),
    "a maker that fails": (
        "def application():\n    raise KeyError('TOKEN')",
        "their_bot:application() failed: KeyError: 'TOKEN'. ({here}/their_bot.py:2)",
    ),
    "a marked function that is not async": (
        "from floodgate import on_update\n@on_update\ndef application(update, client): ...",
        "@on_update needs an async function and application is not async: write `async def`",
    ),
}


@pytest.mark.parametrize(("text", "said"), WRONG.values(), ids=WRONG)
def test_a_wrong_target_is_reported_in_one_sentence(write: Write, tmp_path: Path, text: str | None, said: str) -> None:
    if text is not None:
        write(text)
    with pytest.raises(SettingsError, match=re.escape(said.format(here=tmp_path))):
        load_target("their_bot:application")


def test_a_decorated_function_takes_an_update_and_a_client() -> None:
    with pytest.raises(SettingsError, match=r"calls .*answer\(update, client\): let it take these two arguments"):

        @on_update  # type: ignore[arg-type]
        async def answer(update: object) -> None: ...


def settings(**bots: str) -> Settings:
    return Settings(_env_file=None, bots=bots)


def test_an_application_handles_its_own_bots_updates_and_a_function_those_of_every_bot(write: Write) -> None:
    write(APPLICATION + "application = build()\n")
    both = settings(news="400500600:" + "B" * 35, shop=TOKEN)
    assert assign("their_bot:application", load_target("their_bot:application"), both).bots == ("shop",)

    @on_update
    async def answer(update: object, client: object) -> None: ...

    assert assign("x:y", answer, both).bots == ("news", "shop")


def test_an_application_of_an_unconfigured_bot_is_refused_without_showing_its_token(write: Write) -> None:
    write(APPLICATION + "application = build()\n")
    with pytest.raises(SettingsError, match=r"not configured \(100200300:…\).*configured: news") as caught:
        assign("a:b", load_target("their_bot:application"), settings(news="400500600:" + "B" * 35))
    assert TOKEN not in str(caught.value)
