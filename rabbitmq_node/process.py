"""A process group that is started once, can be found again by another program, and is surely gone when we say so.

A process is known by its id and its start time, so that an id used again is never taken for the node's. The node's
processes share one process group: a signal to the group reaches them all.

A node that must not outlive its owner is tied to it by a `ChildGuard`.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rabbitmq_node.child_guard import ChildGuard

POLL_SECONDS = 0.02
DEATH_SECONDS = 10.0  # a SIGKILLed group is gone in milliseconds; one stuck in the kernel is reported, not waited for


@dataclass(frozen=True, slots=True)
class ProcessId:
    """One process, for as long as the machine runs: `started` is its start time in clock ticks since boot."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> "ProcessId":
        return cls(pid, _stat(pid)[1])

    def alive(self) -> bool:
        """Whether it still runs; a zombie does not."""
        try:
            state, started = _stat(self.pid)
        except OSError:
            return False
        return started == self.started and state not in "ZX"


class ProcessGroup:
    """The processes of one node. Used by one thread at a time; stopping twice is harmless."""

    def __init__(self, leader: ProcessId, child: "subprocess.Popen[bytes] | None" = None) -> None:
        self.leader = leader
        self._child = child  # only where we are the parent: it must be reaped
        self._guard: ChildGuard | None = None

    @classmethod
    def start(cls, command: Sequence[str], env: Mapping[str, str], log: Path, *, guarded: bool) -> "ProcessGroup":
        """Run a command in a session of its own, its output appended to the log file."""
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
        """SIGTERM, and SIGKILL for what is left after the grace. Returns when nothing of the group runs."""
        if self.alive():
            self._signal(signal.SIGTERM)
            self._wait_for_leader(grace_seconds)
        self.kill()

    def kill(self) -> None:
        """SIGKILL at once. Returns when nothing of the group runs."""
        if self.alive() or self._child is not None:
            self._signal(signal.SIGKILL)
        self._wait_for_leader(DEATH_SECONDS)
        self._wait_for_the_rest()
        if self._guard is not None:
            self._guard.release()

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
        with contextlib.suppress(ProcessLookupError):  # it went by itself meanwhile, which is what we wanted
            os.killpg(self.leader.pid, number)


def _stat(pid: int) -> tuple[str, int]:
    """State letter and start time of a process. Raises OSError when there is none."""
    fields = _stat_fields(Path("/proc", str(pid)))
    return fields[0], int(fields[19])


def _group_and_state(entry: Path) -> tuple[int, bool]:
    try:
        fields = _stat_fields(entry)
    except OSError:
        return -1, False
    return int(fields[2]), fields[0] not in "ZX"


def _stat_fields(entry: Path) -> list[str]:
    # The second field is the program's name in brackets and may contain anything; fields count from behind the last
    # bracket.
    return (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
