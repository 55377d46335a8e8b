"""A process group that another program can find again, and whose end can be waited for reliably.

A process is identified by its id and its start time, so that a reused id is never mistaken for the node's. The node's
processes share one process group, so a signal to the group reaches them all.

A `ChildGuard` ends a node that must not outlive its owner.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from floodgate.broker.process.child_guard import ChildGuard

POLL_SECONDS = 0.02
DEATH_SECONDS = 10.0  # a killed group ends in milliseconds; a process stuck in the kernel is not waited for longer


@dataclass(frozen=True, slots=True)
class ProcessId:
    """The identity of a process until the next boot: `started` is its start time in clock ticks since boot."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> "ProcessId":
        """Identify the process that now has this id.

        Raises:
            OSError: there is none.
        """
        return cls(pid, _stat(pid)[1])

    def alive(self) -> bool:
        """Whether the process still runs; a zombie does not."""
        try:
            state, started = _stat(self.pid)
        except OSError:
            return False
        return started == self.started and state not in "ZX"


class ProcessGroup:
    """The processes of one node. Use from one thread at a time; safe to stop twice."""

    def __init__(self, leader: ProcessId, child: "subprocess.Popen[bytes] | None" = None) -> None:
        self.leader = leader
        self._child = child  # set only if this process is the parent, which must reap it
        self._guard: ChildGuard | None = None

    @classmethod
    def start(cls, command: Sequence[str], env: Mapping[str, str], log: Path, *, guarded: bool) -> "ProcessGroup":
        """Run a command in a new session, appending its output to a log file."""
        with log.open("ab") as output:
            child = subprocess.Popen(
                command,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                start_new_session=True,
            )
        group = cls(ProcessId.of(child.pid), child)
        if guarded:
            group._guard = ChildGuard(["kill", "-s", "KILL", "--", f"-{child.pid}"])
        return group

    def alive(self) -> bool:
        """Whether the group's first process still runs."""
        if self._child is not None:
            return self._child.poll() is None
        return self.leader.alive()

    def stop(self, grace_seconds: float) -> None:
        """Send SIGTERM, and after the grace period SIGKILL. Returns when no process of the group runs."""
        if self.alive():
            self._signal(signal.SIGTERM)
            self._wait_for_leader(grace_seconds)
        self.kill()

    def kill(self) -> None:
        """Send SIGKILL at once. Returns when no process of the group runs."""
        if self.alive() or self._child is not None:
            self._signal(signal.SIGKILL)
        self._wait_for_leader(DEATH_SECONDS)
        self._wait_for_the_rest()
        if self._guard is not None:
            self._guard.release()

    def freeze(self) -> None:
        """Suspend all processes of the group."""
        if self.alive():
            self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let the processes of the group run on."""
        if self.alive():
            self._signal(signal.SIGCONT)

    def _wait_for_leader(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self.alive() and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)

    def _wait_for_the_rest(self) -> None:
        deadline = time.monotonic() + DEATH_SECONDS
        while time.monotonic() < deadline and self._members():
            time.sleep(POLL_SECONDS)

    def _members(self) -> bool:
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and _group_and_state(entry) == (self.leader.pid, True):
                return True
        return False

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):  # the group has already ended
            os.killpg(self.leader.pid, number)


def _stat(pid: int) -> tuple[str, int]:
    """The state letter and start time of a process.

    Raises:
        OSError: there is no such process.
    """
    fields = _stat_fields(Path("/proc", str(pid)))
    return fields[0], int(fields[19])


def _group_and_state(entry: Path) -> tuple[int, bool]:
    try:
        fields = _stat_fields(entry)
    except OSError:
        return -1, False
    return int(fields[2]), fields[0] not in "ZX"


def _stat_fields(entry: Path) -> list[str]:
    # The second field is the program's name in parentheses and may contain any character, so fields are counted from
    # the last parenthesis.
    return (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
