"""Runs one command of a server's own tools to its end, bounded in time, and says in its words why it failed."""

import subprocess
from collections.abc import Mapping, Sequence

from rabbitmq_node.errors import CommandError


def run_command(command: Sequence[str], env: Mapping[str, str], timeout_seconds: float, *, called: str) -> str:
    """What it prints. Raises CommandError under the name it is called by: it failed, took too long or is not there."""
    try:
        done = subprocess.run(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise CommandError(f"{called}: no end within {timeout_seconds:g} s") from None
    except OSError as error:
        raise CommandError(f"{called}: {error.strerror}") from error
    if done.returncode != 0:
        raise CommandError(f"{called}: {(done.stderr or done.stdout).strip()}")
    return done.stdout
