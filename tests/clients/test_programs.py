"""Bots of others, as they are, through the gateway: three libraries' examples, and some in the spirit of others."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from floodgate.fake_telegram.control import Arrived
from tests.acceptance.gateway.conftest import Gate
from tests.acceptance.gateway.programs import clients_python, node_modules
from tests.acceptance.stage import TOKEN
from tests.clients.dialogues import DIALOGUES, NOT_RUN, Turn
from tests.processes import ROOT
from tests.waiting import until

BOT_ID: Final = int(TOKEN.partition(":")[0])
WRITTEN: Final = Path(__file__).with_name("written")
LAUNCHER: Final = Path(__file__).with_name("launcher.py")
# aiogram builds its models at each start, which takes seconds, and half a minute on a busy machine.
START_SECONDS: Final = 80.0
ANSWER_SECONDS: Final = 30.0
# One of each library runs with all tests, the others with --clients.
ALWAYS: Final = {
    *("inlinekeyboard", "finite_state_machine", "step_example", "asynchronous_telebot/custom_states"),
    *("moderation_grammy.cjs", "feedback_telegraf.cjs"),
}
_users = itertools.count(7_000_000)


def programs() -> Iterator[Any]:
    """Yield the programs, one parameter set each."""
    for library, dialogues in DIALOGUES.items():
        for name, turns in dialogues.items():
            marks = [] if name in ALWAYS else [pytest.mark.clients]
            if name.endswith(".cjs") and node_modules() is None:
                marks = [pytest.mark.skip(reason="no Node here, or scripts/setup --tests has not run since")]
            yield pytest.param(library, name, turns, id=f"{library}-{name}", marks=marks)


def source_of(library: str) -> Path:
    """The folder of a library's examples, which scripts/setup --tests fetches."""
    folder = Path(os.environ.get(f"FLOODGATE_{library.upper()}_EXAMPLES", ROOT / ".cache" / f"{library}-examples"))
    assert folder.exists(), f"{folder} is missing: scripts/setup --tests fetches it"
    return folder


class User:
    """Talks to a running program, alone and in a group."""

    def __init__(self, gate: Gate, log: Path) -> None:
        self._gate, self._log = gate, log
        self.id = next(_users)
        self.group = -1_000_000_000_000 - self.id
        self.program: subprocess.Popen[bytes] | None = None
        self._last_message = 0

    def takes(self, turn: Turn) -> None:
        """Do what the turn says and wait for the program's call."""
        does, expected = turn
        seconds = START_SECONDS if does is None else ANSWER_SECONDS
        late = time.monotonic() + seconds
        before = max((call.seq for call in self._arrivals()), default=0) if does is not None else 0
        if does is not None:
            self._gate.stage.control.inject_updates(BOT_ID, [self._update(does)])
        call = until(
            lambda: self._answer(before, expected) or self._over(late, acts_alone=does is None), ANSWER_SECONDS + 5
        )
        assert isinstance(call, Arrived), f"no call with {expected!r}:\n{self._log.read_text()[-3000:]}"
        self._last_message = call.message_id or self._last_message

    def waits_for_a_poll(self) -> None:
        """Wait until the program asks for updates: some skip those that came before."""
        until(lambda: any(call.method == "getUpdates" for call in self._arrivals()) or self._ended(), START_SECONDS)

    def sees_the_end(self) -> None:
        """Wait until the program ends by itself, without an error."""
        assert self.program is not None
        assert self.program.wait(ANSWER_SECONDS) == 0, self._log.read_text()[-3000:]

    def _update(self, does: str | dict[str, Any]) -> dict[str, Any]:
        if isinstance(does, dict):
            text = json.dumps(does)
            for name, number in (("USER", self.id), ("GROUP", self.group), ("LAST", self._last_message)):
                text = text.replace(f'"{name}"', str(number))
            update: dict[str, Any] = json.loads(text)
            return update
        if does == "PHOTO":
            return self._update(
                {"message": {"from": {"id": "USER", "is_bot": False, "first_name": "Ada"}, **self._photo()}}
            )
        if does.startswith("press:"):
            return {"user": self.id, "callback": does.removeprefix("press:"), "message_id": self._last_message}
        return {"user": self.id, "text": does}

    def _photo(self) -> dict[str, Any]:
        """A photo that Telegram has."""
        picture = b"\xff\xd8\xff\xe0" + bytes(600) + b"\xff\xd9"
        url = f"{self._gate.stage.telegram_url}/bot{TOKEN}/sendPhoto"
        answer = httpx.post(url, data={"chat_id": "1"}, files={"photo": ("me.jpg", picture)})
        return {"photo": answer.json()["result"]["photo"]}

    def _arrivals(self) -> list[Arrived]:
        return self._gate.stage.control.arrivals()

    def _answer(self, after: int, expected: str) -> Arrived | None:
        calls = (call for call in self._arrivals() if call.seq > after and call.acted and call.method != "getUpdates")
        return next(
            (call for call in calls if expected in f"{call.method} {json.dumps(call.params, ensure_ascii=False)}"), None
        )

    def _over(self, late: float, acts_alone: bool) -> bool:
        return time.monotonic() > late or (self._ended() and not acts_alone)

    def _ended(self) -> bool:
        return self.program is not None and self.program.poll() is not None


def command_of(library: str, name: str, url: str) -> list[str]:
    if library == "written":
        return ["node" if name.endswith(".cjs") else clients_python(), str(WRITTEN / name)]
    command = [clients_python(), str(LAUNCHER), library, url, TOKEN, str(source_of(library) / f"{name}.py")]
    return [*command, "--token", TOKEN, "--chat-id", "1"] if name == "without_dispatcher" else command


@contextlib.contextmanager
def running(gate: Gate, library: str, name: str, home: Path) -> Iterator[User]:
    log = home / "program.log"
    user = User(gate, log)
    env = {**os.environ, "PYTHONPATH": "", "NODE_PATH": str(node_modules() or ""), "BOT_TOKEN": TOKEN}
    env |= {"API_ROOT": gate.url, "STAFF": str(user.group)}
    command = command_of(library, name, gate.url)
    with log.open("wb") as output:
        user.program = subprocess.Popen(command, env=env, cwd=home, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield user
    finally:
        user.program.kill()
        user.program.wait()


@pytest.mark.parametrize(("library", "name", "turns"), list(programs()))
def test_a_bot_of_others_answers_its_users(
    gate: Gate, library: str, name: str, turns: tuple[Turn, ...], tmp_path: Path
) -> None:
    with running(gate, library, name, tmp_path) as user:
        if turns[0][0] is not None:
            user.waits_for_a_poll()
        for turn in turns:
            user.takes(turn)
        if turns[0][0] is None:
            user.sees_the_end()
    totals = gate.stage.control.summary()
    assert (totals.answers_429, totals.duplicated) == (0, 0)


def test_every_example_is_run_or_has_a_reason() -> None:
    assert {path.name for path in WRITTEN.iterdir()} == DIALOGUES["written"].keys()
    for library in NOT_RUN:
        found = {str(path.relative_to(source_of(library)).with_suffix("")) for path in source_of(library).rglob("*.py")}
        known = DIALOGUES[library].keys() | NOT_RUN[library].keys()
        folders = tuple(name for name in known if name.endswith("/"))
        assert {name for name in found - known if not name.startswith(folders)} == set()
        assert {name for name in known - found if not name.endswith("/")} == set()
