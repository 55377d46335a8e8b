"""A process of a benchmark, started by its command, and what it costs."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Self

from rabbitmq_node.process import ProcessGroup

ROOT: Final = Path(__file__).parents[2]
# Libraries of the tests that are not Python's.
NODE_MODULES: Final = Path(os.environ.get("FLOODGATE_CLIENTS_NODE", ROOT / ".cache" / "clients")) / "node_modules"
READY_SECONDS: Final = 60.0
STOP_SECONDS: Final = 60.0
POLL_SECONDS: Final = 0.02
_TICK: Final = os.sysconf("SC_CLK_TCK")


class ProgramError(Exception):
    """A process ended before it was ready. The message holds the end of its log."""


class Program:
    """A Python module run as a process. It does not outlive this one, whatever ends that.

    Args:
        arguments: of ``python``, as in ``["-m", "floodgate", "worker"]``.
        ready_word: what a line of its log holds once it is ready.
        interpreter: what runs it, this Python unless told otherwise.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        env: Mapping[str, str],
        log: Path,
        ready_word: str,
        interpreter: str = sys.executable,
    ) -> None:
        self._command = [interpreter, *arguments]
        self._env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **env}
        self._log = log
        self._ready_word = ready_word
        self._group: ProcessGroup | None = None

    @property
    def pid(self) -> int:
        assert self._group is not None, "not started"
        return self._group.leader.pid

    def start(self) -> Self:
        """Start it, without waiting: see :meth:`ready_line`."""
        self._group = ProcessGroup.start(self._command, self._env, self._log, guarded=True)
        return self

    def ready_line(self, within_seconds: float = READY_SECONDS) -> str:
        """The line that says it is ready; waits for it.

        Raises:
            ProgramError: it ended, or did not say so in time.
        """
        deadline = time.monotonic() + within_seconds
        while time.monotonic() < deadline:
            for line in self.log().splitlines():
                if self._ready_word in line:
                    return line.strip()
            if not self.running:
                break
            time.sleep(POLL_SECONDS)
        raise ProgramError(f"{' '.join(self._command)} did not start. The end of its log:\n{self.log()[-2000:]}")

    @property
    def running(self) -> bool:
        return self._group is not None and self._group.alive()

    def log(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def stop(self) -> None:
        """SIGTERM, and SIGKILL a minute later. Safe to call twice, and unstarted."""
        group, self._group = self._group, None
        if group is not None:
            group.stop(STOP_SECONDS)

    def kill(self) -> None:
        """SIGKILL."""
        group, self._group = self._group, None
        if group is not None:
            group.kill()

    def cpu_seconds(self) -> float:
        """User and system time so far, of the process and all it has started."""
        return sum(int(fields[11]) + int(fields[12]) for fields in self._members()) / _TICK

    def resident_bytes(self) -> int:
        """Memory in RAM now, of the process and all it has started."""
        return sum(int(fields[21]) for fields in self._members()) * os.sysconf("SC_PAGE_SIZE")

    def threads(self) -> int:
        """How many threads run now, of the process and all it has started."""
        return sum(int(fields[17]) for fields in self._members())

    def _members(self) -> Iterator[list[str]]:
        """/proc/PID/stat from the third field on, for each process of the group."""
        for entry in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = entry.read_text(errors="replace").rpartition(")")[2].split()
            except OSError:
                continue  # it ended meanwhile
            if int(fields[2]) == self.pid:
                yield fields
