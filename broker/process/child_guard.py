"""Runs a last command when this process ends, in whatever way, so that nothing it started outlives it.

A shell that reads from a pipe runs the command; the kernel closes the pipe when this process is gone. (The kernel's own
parent-death signal depends on the parent *thread*: a node started by a thread that ends would be killed with it.)
"""

import os
import subprocess
from collections.abc import Mapping, Sequence

SHELL = 'read -r line || "$@"'
RELEASE_SECONDS = 10.0


class ChildGuard:
    """Runs a command at this process's end. Use from one thread at a time; `release` may be called twice."""

    def __init__(self, last_command: Sequence[str], env: Mapping[str, str] | None = None) -> None:
        self._shell = subprocess.Popen(
            ["sh", "-c", SHELL, "child-guard", *last_command],
            env=env if env is not None else os.environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def release(self) -> None:
        """End the guard without running the command, since what it names may soon belong to another process."""
        if self._shell.poll() is None:
            self._shell.communicate(b"released\n", timeout=RELEASE_SECONDS)
