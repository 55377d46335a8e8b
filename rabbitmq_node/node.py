"""One RabbitMQ node of our own: on free ports, with its own data, apart from whatever else runs here.

    with Node("4.0", conf={"heartbeat": "5"}) as node:
        connect(node.url)
        node.kill()                                    # as if the power failed; the data stays
        node.start()                                   # the same node, the same port
        node.ctl("list_queues", "name", "type")

State: a *home* folder with the node's configuration, data, logs and `node.json`, by which another program finds the
running node again. A node without a given home has a temporary one that goes with it.

Invariants: `start` returns when the server answers AMQP, or raises with the end of its log; it never returns
half-started. Nothing outlives `stop` and `kill`. A node that is not `detached` does not outlive its program either,
whatever ends that.
"""

import json
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

from rabbitmq_node import provision
from rabbitmq_node.amqp import greet
from rabbitmq_node.engine import Engine, NodeSpec, Ports, free_ports, port_is_free
from rabbitmq_node.errors import CommandError, NodeError

START_SECONDS = 60.0  # a fresh node takes 3 s on an idle machine with two cores
CTL_SECONDS = 60.0
LOG_TAIL_LINES = 80  # a server that cannot start names the cause up to fifty lines before its end
POLL_SECONDS = 0.05


class Node:
    """A RabbitMQ node. Used by one thread at a time; `start`, `stop` and `kill` may come in any order, repeatedly."""

    def __init__(
        self,
        version: str | None = None,
        *,
        port: int | None = None,
        conf: Mapping[str, str] | None = None,
        plugins: tuple[str, ...] = (),
        home: Path | None = None,
        engine: Engine | None = None,
        detached: bool = False,
    ) -> None:
        """Describe a node; nothing happens before `start`.

        version: "4.0" or "4.3"; None takes what is at hand. port: for AMQP; None picks a free one and keeps it over
        restarts. conf: further lines of rabbitmq.conf, which win over ours. plugins: to enable. home: a folder that
        outlives the node. engine: what runs it, if not what `provision` finds. detached: whether the node outlives
        this program.
        """
        self._wanted_version = version
        self._wanted_port = port
        self._conf = dict(conf or {})
        self._plugins = plugins
        self._home = home
        self._home_is_ours = home is None
        self._detached = detached
        self._engine = engine
        self._ports: Ports | None = None
        self._version = ""

    @staticmethod
    def last_port_in(home: Path) -> int | None:
        """The AMQP port that the last node with this home had, if it is free now."""
        try:
            port = int(json.loads((home / "node.json").read_text())["ports"]["amqp"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return port if port_is_free(port) else None

    @classmethod
    def running_in(cls, home: Path) -> "Node | None":
        """The node that some program started with this home, if it runs."""
        try:
            record = json.loads((home / "node.json").read_text())
            ports = Ports(**record["ports"])
            engine = provision.adopt(record["engine"], NodeSpec(home, ports, detached=True))
            version, runs = str(record["version"]), engine.running()
        except (OSError, ValueError, KeyError, TypeError):
            return None  # no record, or one that another release of ours wrote: either way no node of ours
        except CommandError:
            return None  # its container engine is away, and the node with it
        node = cls(version, home=home, engine=engine, detached=True)
        node._ports, node._version = ports, version
        return node if runs else None

    @property
    def home(self) -> Path:
        """The folder with what it has. Raises NodeError before the first start and after `remove`."""
        if self._home is None:
            raise NodeError("this node has no folder: it was never started, or it was removed")
        return self._home

    @property
    def port(self) -> int:
        """The AMQP port. Raises NodeError before the first start."""
        if self._ports is None:
            raise NodeError("this node was never started")
        return self._ports.amqp

    @property
    def version(self) -> str:
        """The server's own version, as in "4.0.5"; empty before the first start."""
        return self._version

    @property
    def url(self) -> str:
        """The AMQP URL of the default vhost. Raises NodeError before the first start."""
        return self.url_of("/")

    def url_of(self, vhost: str) -> str:
        """The AMQP URL of a vhost."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}/{quote(vhost, safe='')}"

    def running(self) -> bool:
        """Whether the node is there; it may be starting yet."""
        return self._engine is not None and self._engine.running()

    def start(self) -> "Node":
        """Start it, or do nothing if it runs. Returns when it answers. Raises a RabbitMQSetupError."""
        if self.running():
            return self
        spec = self._spec()
        engine = self._engine = self._engine or provision.engine(self._wanted_version)
        engine.launch(spec)
        self._await_greeting(engine)
        self._write_record(engine, spec)
        return self

    def stop(self) -> None:
        """Shut down cleanly; data stays. Returns when nothing of the node runs any more."""
        if self._engine is not None:
            self._engine.stop()

    def kill(self) -> None:
        """End it at once, with SIGKILL; data stays as a crash leaves it."""
        if self._engine is not None:
            self._engine.kill()

    def restart(self) -> "Node":
        """Stop and start on the same port with the same data."""
        self.stop()
        return self.start()

    def remove(self) -> None:
        """End it and delete all it had."""
        self.kill()
        if self._engine is not None:
            self._engine.remove()
        if self._home is not None:
            shutil.rmtree(self._home, ignore_errors=True)
        self._home = None if self._home_is_ours else self._home

    def ctl(self, *args: str, timeout_seconds: float = CTL_SECONDS) -> str:
        """What `rabbitmqctl` with these arguments prints, undecorated. Raises CommandError with its own words."""
        if self._engine is None:
            raise NodeError("this node was never started")
        return self._engine.ctl(args, timeout_seconds)

    def log_tail(self, lines: int = LOG_TAIL_LINES) -> str:
        """The last lines of what the server said."""
        return self._engine.log_tail(lines) if self._engine is not None else ""

    def __enter__(self) -> "Node":
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._home_is_ours:
            self.remove()
        else:
            self.stop()

    def _spec(self) -> NodeSpec:
        self._ports = self._ports or free_ports(self._wanted_port)
        if not port_is_free(self.port):
            raise NodeError(f"Port {self.port} is taken by another program; without --port, a free one is used.")
        self._home = self._home or Path(tempfile.mkdtemp(prefix="floodgate-rabbitmq-"))
        self._home.mkdir(parents=True, exist_ok=True)
        return NodeSpec(self._home, self._ports, self._conf, self._plugins, self._detached)

    def _await_greeting(self, engine: Engine) -> None:
        deadline = time.monotonic() + START_SECONDS
        while engine.running() and time.monotonic() < deadline:
            greeting = greet("127.0.0.1", self.port)
            if greeting is not None and engine.booted():
                self._version = greeting.version
                return
            time.sleep(POLL_SECONDS)
        why = f"did not answer within {START_SECONDS:.0f} s" if engine.running() else "ended while it was starting"
        self.kill()
        raise NodeError(f"RabbitMQ on port {self.port} {why}; the end of its log:\n{self.log_tail()}")

    def _write_record(self, engine: Engine, spec: NodeSpec) -> None:
        record = {"version": self._version, "ports": asdict(spec.ports), "engine": engine.record()}
        (spec.home / "node.json").write_text(json.dumps(record))
