"""The servers that tests run against: real, private, on free ports, and ended with the test session in any case."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rabbitmq_node.engine import free_ports
from rabbitmq_node.node import Node
from rabbitmq_node.process import ProcessGroup

VHOST_BATCH = 20  # one rabbitmqctl takes half a second, whether for one vhost or for twenty
REDIS_START_SECONDS = 10.0
REDIS_STOP_SECONDS = 10.0
POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Vhost:
    """A part of the shared node for a single test."""

    name: str
    node: Node

    @property
    def url(self) -> str:
        return self.node.url_of(self.name)

    def ctl(self, command: str, *args: str) -> str:
        """Runs `rabbitmqctl` on this vhost, e.g. `vhost.ctl("list_queues", "name", "type", "--formatter=json")`."""
        return self.node.ctl("--vhost", self.name, command, *args)


@dataclass(slots=True)
class Vhosts:
    """New vhosts of one node, created and deleted in batches. Used by the test thread only."""

    node: Node
    _fresh: list[str] = field(default_factory=list)
    _used: list[str] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def take(self) -> Vhost:
        """Returns a vhost that no test has used."""
        if not self._fresh:
            self._renew()
        return Vhost(self._fresh.pop(0), self.node)

    def give_back(self, vhost: Vhost) -> None:
        """Deletes it with the next batch: its queues use memory during the tests that follow."""
        self._used.append(vhost.name)

    def _renew(self) -> None:
        names = [f"test-{number}" for number in itertools.islice(self._numbers, VHOST_BATCH)]
        self.node.ctl("eval", f"{_delete(self._used)}, {', '.join(map(_add, names))}, ok.")
        self._fresh, self._used = names, []


def _add(name: str) -> str:
    rights = '<<".*">>, <<".*">>, <<".*">>'
    allow = f'rabbit_auth_backend_internal:set_permissions(<<"guest">>, <<"{name}">>, {rights}, <<"tests">>)'
    return f'rabbit_vhost:add(<<"{name}">>, <<"tests">>), {allow}'


def _delete(names: list[str]) -> str:
    """All at once: each waits for the disk most of the time."""
    each = ", ".join(f'<<"{name}">>' for name in names)
    start = 'spawn_monitor(fun() -> rabbit_vhost:delete(Name, <<"tests">>) end)'
    wait = "[receive {'DOWN', Reference, _, _, _} -> ok end || {_, Reference} <- Under_way]"
    return f"Under_way = [{start} || Name <- [{each}]], {wait}"


class RedisServer:
    """Our own Redis or Valkey that writes every change to disk, so that it can be killed and restarted.

    Used by one thread at a time; `start`, `stop` and `kill` may be called in any order, repeatedly.
    """

    def __init__(self, home: Path, *flags: str) -> None:
        self.home = home
        self.flags = flags
        self.port = free_ports().amqp
        self._group: ProcessGroup | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> RedisServer:
        """Returns when it answers. Raises RuntimeError with its output if it does not."""
        if self._group is None:
            log = self.home / "redis.log"
            self._group = ProcessGroup.start(self._command(), dict(os.environ), log, guarded=True)
            self._await_pong(log)
        return self

    def stop(self) -> None:
        if self._group is not None:
            self._group.stop(REDIS_STOP_SECONDS)
            self._group = None

    def kill(self) -> None:
        if self._group is not None:
            self._group.kill()
            self._group = None

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Suspends the server: connections are accepted, and nothing is answered."""
        assert self._group is not None
        self._group.freeze()
        try:
            yield
        finally:
            if self._group is not None:
                self._group.thaw()

    def flush(self) -> None:
        """Deletes all data."""
        self._ask(b"FLUSHALL\r\n", b"+OK")

    def _command(self) -> list[str]:
        program = shutil.which("redis-server") or shutil.which("valkey-server")
        if program is None:
            raise RuntimeError("These tests need redis-server or valkey-server: install one")
        flags = ["--bind", "127.0.0.1", "--dir", str(self.home), "--appendonly", "yes", "--appendfsync", "always"]
        return [program, "--port", str(self.port), "--save", "", *flags, *self.flags]

    def _await_pong(self, log: Path) -> None:
        deadline = time.monotonic() + REDIS_START_SECONDS
        while time.monotonic() < deadline:
            try:
                return self._ask(b"PING\r\n", b"+PONG")
            except (OSError, ValueError):
                time.sleep(POLL_SECONDS)
        self.kill()
        raise RuntimeError(f"Redis did not come up:\n{log.read_text(errors='replace')}")

    def _ask(self, command: bytes, expected: bytes) -> None:
        with socket.create_connection(("127.0.0.1", self.port), timeout=REDIS_START_SECONDS) as connection:
            connection.sendall(command)
            answer = connection.recv(64)
        if not answer.startswith(expected):
            raise ValueError(f"Redis answered {answer!r}")


class PostgresServer:
    """A PostgreSQL of our own. PostgreSQL refuses to run as root, so for root it runs as the user `postgres`."""

    def __init__(self) -> None:
        self.port = free_ports().amqp
        self._folder = Path(tempfile.mkdtemp(prefix="floodgate-postgres-"))
        self._group: ProcessGroup | None = None
        self._databases = itertools.count()

    def new_database(self) -> str:
        """Create a database; return its URL."""
        name = f"test_{next(self._databases)}"
        self._run("createdb", "--host", "127.0.0.1", "--port", str(self.port), "--username", "floodgate", name)
        return f"postgresql+psycopg://floodgate@127.0.0.1:{self.port}/{name}"

    def start(self) -> PostgresServer:
        """Return when it accepts connections. Raises RuntimeError with its log if it does not."""
        log, data = self._folder / "postgres.log", self._folder / "data"
        if os.getuid() == 0:
            shutil.chown(self._folder, "postgres")
        if not data.exists():
            self._run("initdb", "--pgdata", str(data), "--username", "floodgate", "--auth", "trust", "--no-sync")
        settings = ["listen_addresses=127.0.0.1", f"port={self.port}", f"unix_socket_directories={self._folder}"]
        flags = [part for setting in settings for part in ("-c", setting)]
        command = self._as_user("postgres", "-D", str(data), *flags)
        said = log.stat().st_size if log.exists() else 0
        self._group = ProcessGroup.start(command, dict(os.environ), log, guarded=True)
        deadline = time.monotonic() + REDIS_START_SECONDS
        while time.monotonic() < deadline:
            if "ready to accept connections" in log.read_text(errors="replace")[said:]:
                return self
            if not self._group.alive():  # processes of a server that was killed are about to end
                self._group = ProcessGroup.start(command, dict(os.environ), log, guarded=True)
            time.sleep(POLL_SECONDS)
        self.stop()
        raise RuntimeError(f"PostgreSQL did not come up:\n{log.read_text(errors='replace')}")

    def stop(self) -> None:
        if self._group is not None:
            self._group.stop(REDIS_STOP_SECONDS)
            self._group = None

    def kill(self) -> None:
        """Send SIGKILL. The data is kept."""
        if self._group is not None:
            self._group.kill()
            self._group = None

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self._folder)

    def _run(self, *command: str) -> None:
        subprocess.run(self._as_user(*command), check=True, capture_output=True, cwd="/")

    def _as_user(self, program: str, *arguments: str) -> list[str]:
        path = shutil.which(program) or next(
            (str(found) for found in sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"))), None
        )
        if path is None:
            raise RuntimeError("These tests need PostgreSQL: install postgresql")
        as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.getuid() == 0 else []
        return [*as_user, path, *arguments]
