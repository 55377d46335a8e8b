"""Programs written with third-party libraries: with only the base URL changed, they stay within the limits."""

from __future__ import annotations

import itertools

import pytest

from tests.acceptance.gateway.conftest import Gate
from tests.acceptance.gateway.programs import node_modules, run_client
from tests.acceptance.stage import TOKEN

CROWD = 200  # for the first library, and for all of them with --chaos; it takes seven seconds
SMALL_CROWD = 40
BOT_ID = int(TOKEN.partition(":")[0])
_chats = itertools.count(1_000_000, 10_000)
PROGRAMS = ["with_ptb.py", "with_aiogram.py", "with_telebot.py"]
NODE_PROGRAMS = ["with_grammy.cjs", "with_telegraf.cjs"]


@pytest.fixture
def crowd(request: pytest.FixtureRequest, program: str) -> int:
    full = program == PROGRAMS[0] or request.config.getoption("--chaos")
    return CROWD if full else SMALL_CROWD


def check(gate: Gate, program: str, crowd: int) -> None:
    chat = next(_chats)
    control = gate.stage.control
    control.set_chat(chat + 90, trouble="blocked")
    control.inject_updates(BOT_ID, [{"user": chat, "callback": "yes", "message_id": 1}])

    seen = run_client(program, gate.url, TOKEN, str(chat), str(crowd))

    assert (seen["me"], seen["text"], seen["buttons"]) == (BOT_ID, "hi", True)
    assert seen["photo"] == ["a picture", True]
    assert seen["file"] > 5000
    assert seen["album"] == [True, True]
    assert (seen["edited"], seen["deleted"], seen["action"], seen["answered"]) == ("edited", True, True, True)
    blocked, markup, too_long = (text.lower() for text in seen["errors"])
    assert "bot was blocked by the user" in blocked
    assert "can't parse entities" in markup
    assert "message is too long" in too_long
    assert seen["crowd"] == [True] * crowd
    assert seen["texts"] == [True] * crowd
    totals = control.summary()
    assert totals.answers_429 == 0
    assert totals.duplicated == 0


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_python_library_works_unmodified(gate: Gate, program: str, crowd: int) -> None:
    check(gate, program, crowd)


@pytest.mark.skipif(node_modules() is None, reason="no Node here, or scripts/setup --tests has not run since")
@pytest.mark.parametrize("program", NODE_PROGRAMS)
def test_a_javascript_library_works_unmodified(gate: Gate, program: str, crowd: int) -> None:
    check(gate, program, crowd)
