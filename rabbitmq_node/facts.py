"""Looks up the facts that `choice` decides on. Every lookup has a time-out, and none changes anything."""

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from rabbitmq_node.choice import Facts, Installed

DOCKER_SECONDS = 5.0  # without an engine, the docker client may hang for minutes
VERSION_SECONDS = 20.0
DEBIAN_SCRIPTS = Path("/usr/lib/rabbitmq/bin")


def gather() -> Facts:
    """Gather the facts of this machine."""
    return Facts(compose=compose_works(), installed=find_installed(), root=os.geteuid() == 0, debian=is_debian_like())


def compose_works() -> bool:
    """Whether a Docker engine answers, and not just the client, and the Compose plugin is installed."""
    return _succeeds(["docker", "compose", "version"]) and _succeeds(["docker", "info"])


def find_installed() -> Installed | None:
    """Find the RabbitMQ that is installed on this machine, if any."""
    found = shutil.which("rabbitmq-server", path=f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin")
    # Debian's command on the PATH is a wrapper that requires a system user; the scripts themselves are elsewhere.
    candidates = [DEBIAN_SCRIPTS, *([Path(found).resolve().parent] if found else [])]
    for scripts in candidates:
        version = _version_of(scripts)
        if version:
            return Installed(scripts, version)
    return None


def is_debian_like() -> bool:
    """Whether this machine has apt, and so can install debootstrap and a Debian keyring."""
    return shutil.which("apt-get") is not None


def _version_of(scripts: Path) -> str | None:
    server = scripts / "rabbitmq-server"
    if not server.exists():
        return None
    named = re.search(r"rabbitmq_server-(\d+\.\d+[^/]*)/", str(server.resolve()))
    return named.group(1) if named else _ask_version(scripts / "rabbitmqctl")


def _ask_version(ctl: Path) -> str | None:
    try:
        done = subprocess.run(
            [ctl, "version"],
            capture_output=True,
            text=True,
            timeout=VERSION_SECONDS,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _succeeds(command: Sequence[str]) -> bool:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=DOCKER_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
