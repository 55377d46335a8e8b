"""`floodgate` processes as users start them: by the command, with an environment, ended by signals.

    with FloodgateProcess("worker", env=…, home=tmp_path).start("worker ready") as worker:
        worker.kill()
    run_floodgate("status", "--json", env=…, home=tmp_path).stdout

A process runs in its own folder and sees no `FLOODGATE_*` except those it is given, so that neither a `.env` nor the
caller's shell affects a test. Its output goes to a log file, which is all that is kept.
It ends with the program that started it, even if that is killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from floodgate.broker.process.child_guard import ChildGuard
from tests.waiting import until

ROOT = Path(__file__).parents[1]
READY_SECONDS = 30.0
STOP_SECONDS = 60.0
COMMAND_SECONDS = 60.0


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """This process's environment with only the given variables as settings of Floodgate."""
    # With ``get``: pytest changes a variable while threads of a test start processes.
    others = {name: os.environ.get(name) for name in list(os.environ) if not name.startswith("FLOODGATE_")}
    kept = {name: value for name, value in others.items() if value is not None}
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "TERM": "dumb", "COLUMNS": "200", **given}


def run_floodgate(*arguments: str, env: Mapping[str, str], home: Path) -> subprocess.CompletedProcess[str]:
    """Runs one command to its end. Raises TimeoutExpired if that takes more than a minute."""
    return run_python("-m", "floodgate", *arguments, env=env, home=home)


def run_python(*arguments: str, env: Mapping[str, str], home: Path) -> subprocess.CompletedProcess[str]:
    """Runs a new interpreter to its end."""
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment(env),
        cwd=home,
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
    )


class FloodgateProcess:
    """One long-running command. `stop`, `kill` and leaving the `with` may be called in any order, repeatedly."""

    def __init__(
        self,
        *arguments: str,
        env: Mapping[str, str],
        home: Path,
        name: str = "process",
        module: str = "floodgate",
        python: str = sys.executable,
    ) -> None:
        self._command = [python, "-m", module, *arguments]
        self._env = environment(env)
        self._home = home
        self._log_path = home / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: ChildGuard | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        """All its output so far, on both streams."""
        return self._log_path.read_text(errors="replace")

    def said(self, word: str) -> str:
        """Waits for the first line with the text: a process may write its lines a moment later."""
        return until(lambda: next((line for line in self.log.splitlines() if word in line), ""))

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, ready: str, seconds: float = READY_SECONDS) -> Self:
        """Waits until it has printed `ready`; AssertionError with its log if it ends before or does not."""
        with self._log_path.open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                env=self._env,
                cwd=self._home,
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=0,
            )
        self._guard = ChildGuard(["kill", "-s", "KILL", "--", f"-{self.pid}"])
        until(lambda: ready in self.log or not self.running, seconds)
        assert ready in self.log, f"{self._command[3:]} did not start:\n{self.log}"
        return self

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self, seconds: float = STOP_SECONDS) -> int:
        """Returns its exit code. Raises TimeoutExpired if it does not end in time."""
        assert self._process is not None
        code = self._process.wait(seconds)
        if self._guard is not None:
            self._guard.release()
        return code

    def stop(self) -> int:
        """Asks it to end; returns its exit code."""
        if self.running:
            self.signal()
        return self.wait()

    def kill(self) -> None:
        """Ends it at once with SIGKILL, and all processes it has started: Dramatiq's own command forks its workers."""
        if self._process is not None:
            with suppress(ProcessLookupError):  # all of them have ended
                os.killpg(self.pid, signal.SIGKILL)
            self.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
