"""A command as a child process that never outlives this process.

Each child has a process group of its own, so that Ctrl-C in a terminal reaches only this process, which stops its
children in order. If this process ends without having stopped a child, even by SIGKILL, a guard sends the child
SIGTERM, and SIGKILL when its time to stop has passed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import IO, Final

from floodgate.broker.process.child_guard import ChildGuard

# $1 is the process group, $2 the number of seconds it may take to stop.
STOP_GROUP: Final = """
kill -s TERM -- "-$1"
while [ "$2" -gt 0 ] && kill -s 0 -- "-$1"; do sleep 1; set -- "$1" "$(($2 - 1))"; done
kill -s KILL -- "-$1"
"""


def floodgate_command(*arguments: str) -> list[str]:
    """Return the command line that runs ``floodgate`` with this interpreter."""
    return [sys.executable, "-m", "floodgate", *arguments]


class ChildProcess:
    """One running command. `terminate`, `kill` and `stop` may be called twice, and after it has ended.

    Args:
        command: The command line.
        env: Variables in addition to this process's.
        output: File for standard output and standard error; ``subprocess.PIPE`` makes them readable at ``lines``.
        stop_seconds: How long it may take to stop after SIGTERM.

    Raises:
        OSError: The process cannot be created.
    """

    def __init__(
        self, command: Sequence[str], env: Mapping[str, str], *, output: int | IO[bytes], stop_seconds: float
    ) -> None:
        self._stop_seconds = stop_seconds
        self._process = subprocess.Popen(
            command,
            env={**os.environ, **env, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
        self._guard = ChildGuard(["sh", "-c", STOP_GROUP, "stop-group", str(self.pid), str(int(stop_seconds))])

    @property
    def pid(self) -> int:
        """The id of the process and of its group."""
        return self._process.pid

    @property
    def lines(self) -> IO[bytes]:
        """The output, if it is a pipe."""
        assert self._process.stdout is not None
        return self._process.stdout

    def terminate(self) -> None:
        """Ask it to end."""
        self._process.terminate()

    def kill(self) -> None:
        """End it, and what it has started, at once."""
        if self._process.poll() is None:
            with suppress(ProcessLookupError):  # it has ended meanwhile
                os.killpg(self.pid, signal.SIGKILL)

    def wait(self, seconds: float | None = None) -> int:
        """Return its exit code when it has ended; negative for a signal. Call from one thread at a time.

        Raises:
            TimeoutExpired: It has not ended in time.
        """
        code = self._process.wait(seconds)
        self._guard.release()
        return code

    def stop(self) -> int:
        """Ask it to end, kill it if that takes too long, and return its exit code. Call as `wait`."""
        self.terminate()
        try:
            return self.wait(self._stop_seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            return self.wait()
