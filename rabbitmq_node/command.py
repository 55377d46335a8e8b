"""Runs one command of a server's tools, within a time-out, and reports failures in the tool's own words."""

import subprocess
from collections.abc import Mapping, Sequence

from rabbitmq_node.errors import CommandError


def run_command(command: Sequence[str], env: Mapping[str, str], timeout_seconds: float, *, called: str) -> str:
    """Run a command and return its output.

    Args:
        called: the command's name in error messages.

    Raises:
        CommandError: the command failed, took too long or does not exist.
    """
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
        raise CommandError(f"{called}: did not finish within {timeout_seconds:g} s") from None
    except OSError as error:
        raise CommandError(f"{called}: {error.strerror}") from error
    if done.returncode != 0:
        raise CommandError(f"{called}: {(done.stderr or done.stdout).strip()}")
    return done.stdout
