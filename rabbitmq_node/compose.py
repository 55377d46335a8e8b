"""The engine that runs a node in a container of RabbitMQ's own image, with Docker Compose."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from floodgate.broker.process.child_guard import ChildGuard
from rabbitmq_node.command import run_command
from rabbitmq_node.conf import node_conf, write_conf, write_definitions
from rabbitmq_node.engine import NodeSpec
from rabbitmq_node.errors import CommandError

FILE = Path(__file__).resolve().parent / "compose.yaml"
PULL_SECONDS = 600.0  # the first start pulls the image
SECONDS = 60.0
INSIDE = "/etc/floodgate"
# Ports inside the container; Docker publishes the AMQP port on the loopback interface.
OVERRIDES = {
    "listeners.tcp.1": "0.0.0.0:5672",
    "distribution.listener.interface": "127.0.0.1",
    "loopback_users": "none",
}


class ComposeEngine:
    """Runs one node as a Compose project of its own. Use from one thread at a time."""

    def __init__(self, version: str) -> None:
        self._version = version
        self._project = ""
        self._environment: dict[str, str] = {}
        self._guard: ChildGuard | None = None

    @classmethod
    def adopt(cls, record: dict[str, object]) -> "ComposeEngine":
        """Take over a node that another program started."""
        engine = cls(str(record["version"]))
        engine._project = str(record["project"])
        engine._environment = _as_environment(record["environment"])
        return engine

    def launch(self, spec: NodeSpec) -> None:
        self._project = f"floodgate-rabbitmq-{spec.ports.amqp}"
        self._environment = self._prepare(spec)
        if not spec.detached and self._guard is None:
            self._guard = ChildGuard(self._command("down", "--volumes"), self._full_environment())
        self._compose("up", "--detach", "--no-recreate", timeout_seconds=PULL_SECONDS)

    def running(self) -> bool:
        return bool(self._project) and bool(self._compose("ps", "--quiet", "--status=running").strip())

    def booted(self) -> bool:
        try:
            self.ctl(["await_startup"], SECONDS)
        except CommandError:
            return False
        return True

    def stop(self) -> None:
        if self._project:
            self._compose("stop")

    def kill(self) -> None:
        if self.running():
            self._compose("kill", "--signal=SIGKILL")

    def freeze(self) -> None:
        if self.running():
            self._compose("pause")

    def thaw(self) -> None:
        if self._project:
            self._compose("unpause")

    def remove(self) -> None:
        if self._project:
            self._compose("down", "--volumes")
        if self._guard is not None:
            self._guard.release()
            self._guard = None

    def ctl(self, args: Sequence[str], timeout_seconds: float, tool: str = "rabbitmqctl") -> str:
        command = ("exec", "-T", "rabbitmq", tool, "--silent", *args)
        return self._compose(*command, timeout_seconds=timeout_seconds).strip()

    def log_tail(self, lines: int) -> str:
        return self._compose("logs", "--no-color", "--no-log-prefix", f"--tail={lines}") if self._project else ""

    def record(self) -> dict[str, object]:
        return {"project": self._project, "version": self._version, "environment": self._environment}

    def _prepare(self, spec: NodeSpec) -> dict[str, str]:
        """Write the files that the container mounts, and return the variables that compose.yaml uses."""
        (spec.home / "rabbitmq.conf").write_text(write_conf(node_conf(spec, INSIDE, OVERRIDES)))
        (spec.home / "enabled_plugins").write_text(f"[{','.join(spec.plugins)}].\n")
        shutil.copyfile(FILE.with_name("advanced.config"), spec.home / "advanced.config")
        write_definitions(spec.home)
        return {
            "FLOODGATE_NODE_VERSION": self._version,
            "FLOODGATE_NODE_PORT": str(spec.ports.amqp),
            "FLOODGATE_NODE_FILES": str(spec.home),
        }

    def _compose(self, *args: str, timeout_seconds: float = SECONDS) -> str:
        called = f"docker compose {' '.join(args)}"
        return run_command(self._command(*args), self._full_environment(), timeout_seconds, called=called)

    def _command(self, *args: str) -> list[str]:
        return ["docker", "compose", "--project-name", self._project, "--file", str(FILE), *args]

    def _full_environment(self) -> dict[str, str]:
        return {**os.environ, **self._environment}


def _as_environment(recorded: object) -> dict[str, str]:
    if not isinstance(recorded, dict):
        raise TypeError("a record's environment is a mapping")
    return {str(name): str(value) for name, value in recorded.items()}
