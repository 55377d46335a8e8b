"""Child processes of the demo, such as the fake Bot API and a worker, started with their own commands."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from floodgate.broker.errors import FloodgateError
from floodgate.supervision.child_process import ChildProcess, floodgate_command

READY_SECONDS: Final = 30.0
STOP_SECONDS: Final = 60.0
STAND_BACK: Final = ("nice", "-n", "10")


class ChildFailedError(FloodgateError):
    """A process of the demo did not become ready. The message contains the end of its log."""


@contextlib.contextmanager
def child(
    arguments: list[str], env: Mapping[str, str], log: Path, ready_word: str, *, stands_back: bool = False
) -> Iterator[str]:
    """Run ``floodgate`` as :func:`child_process` does; yield the line it printed that contains ``ready_word``."""
    with child_process(arguments, env, log, ready_word, stands_back=stands_back) as (_process, line):
        yield line


@contextlib.contextmanager
def child_process(
    arguments: list[str], env: Mapping[str, str], log: Path, ready_word: str, *, stands_back: bool = False
) -> Iterator[tuple[ChildProcess, str]]:
    """Run ``floodgate`` with ``arguments``; yield its process and its line with ``ready_word``; stop it by SIGTERM.

    A process that ``stands_back`` runs at low priority, so that its start does not delay sends on a small machine.

    Raises:
        ChildFailedError: The process ended, or was not ready within 30 s.
    """
    command = [*(STAND_BACK if stands_back else ()), *floodgate_command(*arguments)]
    with log.open("wb") as output:
        process = ChildProcess(command, env, output=output, stop_seconds=STOP_SECONDS)
    try:
        yield process, _ready_line(process, log, ready_word)
    finally:
        process.stop()


def _ready_line(process: ChildProcess, log: Path, ready_word: str) -> str:
    for _ in range(int(READY_SECONDS / 0.1)):
        with log.open() as lines:
            for line in lines:
                if ready_word in line:
                    return line.strip()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.1)
            break
    raise ChildFailedError(f"A process of the demo did not start. The end of its log:\n{log.read_text()[-2000:]}")
