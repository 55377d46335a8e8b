"""Ties what we started to our own life: when we end, in whatever way, a last command runs.

The command is run by a shell that reads from a pipe of ours, which the kernel closes when we are gone. (The kernel's
own "kill me when my parent dies" goes by the parent's *thread*, so a node started by a thread that ends would die
with it.)
"""

import os
import subprocess
from collections.abc import Mapping, Sequence

SHELL = 'read -r line || "$@"'
RELEASE_SECONDS = 10.0


class ChildGuard:
    """Used by one thread at a time; `release` may be called twice."""

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
        """Let go without the last command: what it names may be somebody else's soon."""
        if self._shell.poll() is None:
            self._shell.communicate(b"released\n", timeout=RELEASE_SECONDS)
