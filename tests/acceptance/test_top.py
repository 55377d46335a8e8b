"""`floodgate top` in a terminal of 80 columns and 24 lines, started by its command."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.stage import TOKEN, Stage
from tests.processes import environment, run_floodgate

SECONDS = 40.0
LEAVES_FULL_SCREEN = "\x1b[?1049l"


class Terminal:
    """A terminal of 80 columns and 24 lines with a program in it."""

    def __init__(self, *arguments: str, stage: Stage, **env: str) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self._theirs = theirs
        self._before = termios.tcgetattr(theirs)
        self.written = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "floodgate", *arguments],
            env={**environment(stage.env), "TERM": "xterm-256color", **env},
            cwd=stage.home,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )

    def until(self, text: str) -> None:
        """Waits until the program has written a text."""
        deadline = time.monotonic() + SECONDS
        while text not in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.written):
            assert time.monotonic() < deadline, f"{text!r} was never written, but:\n{self.written}"
            self._read(0.1)

    def press(self, key: str) -> None:
        os.write(self._ours, key.encode())

    def wait(self) -> int:
        """Returns the exit code, once all output is read."""
        deadline = time.monotonic() + SECONDS
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"It goes on:\n{self.written}"
            self._read(0.05)
        self._read(0.1)
        return self.process.returncode

    @property
    def is_as_before(self) -> bool:
        return termios.tcgetattr(self._theirs) == self._before

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._ours)
        os.close(self._theirs)

    def _read(self, seconds: float) -> None:
        if select.select([self._ours], [], [], seconds)[0]:
            self.written += os.read(self._ours, 65_536).decode(errors="replace")


@pytest.fixture
def open_top(stage: Stage) -> Iterator[Terminal]:
    terminal = Terminal("top", stage=stage, NO_COLOR="1")
    yield terminal
    terminal.close()


@pytest.mark.parametrize("end", ["Ctrl-C", "SIGTERM"])
def test_top_shows_the_picture_and_gives_the_terminal_back(open_top: Terminal, end: str) -> None:
    open_top.until("state store: answers")
    open_top.until("cancel jobs")  # the footer
    if end == "SIGTERM":
        open_top.process.terminate()
    else:
        open_top.press("\x03")
    assert open_top.wait() == 0
    assert LEAVES_FULL_SCREEN in open_top.written
    assert open_top.is_as_before


def test_top_without_a_terminal_names_the_command_for_scripts(tmp_path: Path) -> None:
    ended = run_floodgate("top", env={"FLOODGATE_BOT_TOKEN": TOKEN}, home=tmp_path)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "floodgate status --json" in ended.stderr
