"""The engine that runs a node as local processes."""

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rabbitmq_node.command import run_command
from rabbitmq_node.conf import environment, mapper_environment, write_files
from rabbitmq_node.engine import NodeIdentity, NodeSpec, Ports
from rabbitmq_node.errors import NodeError
from rabbitmq_node.process import ProcessGroup, ProcessId
from rabbitmq_node.server import Server, restore

STOP_SECONDS = 30.0  # a clean stop takes 1 s, or more with much unwritten data
BOOTED = b"Server startup complete"
LOG_TAIL_BYTES = 64 * 1024


class LocalEngine:
    """Runs one node from a RabbitMQ on disk. Use from one thread at a time."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._spec: NodeSpec | None = None
        self._group: ProcessGroup | None = None
        self._log_start = 0  # where this run's part of the log begins

    @classmethod
    def adopt(cls, record: dict[str, object], spec: NodeSpec) -> "LocalEngine":
        """Take over a node that another program started.

        Raises:
            KeyError: the record lacks a field.
            ValueError: a field of the record has the wrong form.
        """
        engine = cls(restore(str(record["server"]), Path(str(record["path"]))))
        engine._spec = spec
        engine._group = ProcessGroup(ProcessId(int(str(record["pid"])), int(str(record["started"]))))
        return engine

    def launch(self, spec: NodeSpec) -> None:
        self._spec = spec
        self._log_start = _size(_log(spec))
        files = self._server.files(spec.home)
        inside = self._server.inside(files)
        write_files(spec, files, inside, self._server.conf())
        self._server.hand_over(files)
        self._group = ProcessGroup.start(
            [*spec.identity.enter, *self._server.run_server(files)],
            environment(spec, inside),
            _log(spec),
            guarded=not spec.detached,
        )

    def start_mapper(self, identity: NodeIdentity, ports: Ports, home: Path) -> ProcessGroup:
        """Start a port mapper that several nodes of one address share."""
        files = self._server.files(home)
        files.mkdir(parents=True, exist_ok=True)
        command = [*identity.enter, *self._server.run_mapper(files)]
        return ProcessGroup.start(command, mapper_environment(identity, ports), home / "mapper.log", guarded=True)

    def running(self) -> bool:
        return self._group is not None and self._group.alive()

    def booted(self) -> bool:
        with _log(self._known_spec()).open("rb") as log:
            log.seek(self._log_start)
            return BOOTED in log.read()

    def stop(self) -> None:
        if self._group is not None:
            self._group.stop(STOP_SECONDS)
            self._group = None

    def kill(self) -> None:
        if self._group is not None:
            self._group.kill()
            self._group = None

    def freeze(self) -> None:
        if self._group is not None:
            self._group.freeze()

    def thaw(self) -> None:
        if self._group is not None:
            self._group.thaw()

    def remove(self) -> None:
        if self._spec is not None:
            shutil.rmtree(self._server.files(self._spec.home), ignore_errors=True)

    def ctl(self, args: Sequence[str], timeout_seconds: float, tool: str = "rabbitmqctl") -> str:
        spec = self._known_spec()
        files = self._server.files(spec.home)
        command = [*spec.identity.enter, *self._server.run_tool(files, tool, ["--silent", *args])]
        env = environment(spec, self._server.inside(files))
        return run_command(command, env, timeout_seconds, called=f"{tool} {' '.join(args)}").strip()

    def log_tail(self, lines: int) -> str:
        if self._spec is None:
            return ""
        return "\n".join(_log(self._spec).read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace").splitlines()[-lines:])

    def record(self) -> dict[str, object]:
        if self._group is None:
            raise NodeError("this node is not running")
        return {**self._server.record(), **asdict(self._group.leader)}

    def _known_spec(self) -> NodeSpec:
        if self._spec is None:
            raise NodeError("this node was never started")
        return self._spec


def _log(spec: NodeSpec) -> Path:
    return spec.home / "output.log"


def _size(log: Path) -> int:
    return log.stat().st_size if log.exists() else 0
