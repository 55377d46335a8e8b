"""A private RabbitMQ node, on free ports and with its own data, separate from anything else on this machine.

    with Node("4.0", conf={"heartbeat": "5"}) as node:
        connect(node.url)
        node.kill()                                    # as in a power failure; the data is kept
        node.start()                                   # the same node, on the same port
        node.ctl("list_queues", "name", "type")

State: a *home* folder with the node's configuration, data, logs and `node.json`, by which another program finds the
running node again. A node without a given home has a temporary one, which is deleted with the node.

Invariants: `start` returns when the server answers AMQP, or raises an error with the end of its log; it never returns a
half-started node. No process survives `stop` or `kill`. A node that is not `detached` ends with its program, however
that ends.
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
from rabbitmq_node.engine import Engine, NodeIdentity, NodeSpec, Ports, free_ports, port_is_free
from rabbitmq_node.errors import CommandError, NodeError

START_SECONDS = 60.0  # a fresh node takes 3 s on an idle machine with two cores
CTL_SECONDS = 60.0
LOG_TAIL_LINES = 80  # a server that cannot start logs the cause up to fifty lines before the end
POLL_SECONDS = 0.05


class Node:
    """A RabbitMQ node. Use from one thread at a time; `start`, `stop` and `kill` may be called repeatedly, in any
    order."""

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
        identity: NodeIdentity | None = None,
    ) -> None:
        """Describe a node. Nothing happens before `start`.

        Args:
            version: "4.0" or "4.3"; None means any that is available.
            port: the AMQP port; None picks a free one and keeps it across restarts.
            conf: lines of rabbitmq.conf, which override the repository's.
            plugins: the plugins to enable.
            home: a folder that is kept after the node ends; None means a temporary one.
            engine: the engine that runs the node; None means the one that `provision` finds.
            detached: whether the node keeps running after this program ends.
            identity: the node's name and addresses; None means a node by itself, on the loopback.
        """
        self._wanted_version = version
        self._wanted_port = port
        self._conf = dict(conf or {})
        self._plugins = plugins
        self._home = home
        self._home_is_ours = home is None
        self._detached = detached
        self._engine = engine
        self.identity = identity or NodeIdentity()
        self._ports = self.identity.ports
        self._version = ""

    @staticmethod
    def last_port_in(home: Path) -> int | None:
        """The AMQP port of the last node with this home, if it is free now."""
        try:
            port = int(json.loads((home / "node.json").read_text())["ports"]["amqp"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return port if port_is_free(port) else None

    @classmethod
    def running_in(cls, home: Path) -> "Node | None":
        """Find the running node that a program started with this home, if any."""
        try:
            record = json.loads((home / "node.json").read_text())
            ports = Ports(**record["ports"])
            engine = provision.adopt(record["engine"], NodeSpec(home, ports, detached=True))
            version, runs = str(record["version"]), engine.running()
        except (OSError, ValueError, KeyError, TypeError):
            return None  # no record, or one that another version wrote: no node of ours either way
        except CommandError:
            return None  # its container engine does not run, so neither does the node
        node = cls(version, home=home, engine=engine, detached=True)
        node._ports, node._version = ports, version
        return node if runs else None

    @property
    def home(self) -> Path:
        """The node's folder.

        Raises:
            NodeError: the node was never started, or was removed.
        """
        if self._home is None:
            raise NodeError("this node has no folder: it was never started, or was removed")
        return self._home

    @property
    def port(self) -> int:
        """The AMQP port.

        Raises:
            NodeError: the node was never started.
        """
        if self._ports is None:
            raise NodeError("this node was never started")
        return self._ports.amqp

    @property
    def version(self) -> str:
        """The server's version, such as "4.0.5"; empty before the first start."""
        return self._version

    @property
    def url(self) -> str:
        """The AMQP URL of the default vhost.

        Raises:
            NodeError: the node was never started.
        """
        return self.url_of("/")

    def url_of(self, vhost: str) -> str:
        """The AMQP URL of a vhost."""
        return f"amqp://guest:guest@{self.address}:{self.port}/{quote(vhost, safe='')}"

    @property
    def name(self) -> str:
        """The name by which Erlang, and so rabbitmqctl, knows the node."""
        return self.identity.name

    @property
    def address(self) -> str:
        """The IP address at which clients reach the node."""
        return self.identity.client_address

    def running(self) -> bool:
        """Whether the node runs; it may still be starting."""
        return self._engine is not None and self._engine.running()

    def start(self) -> "Node":
        """Start the node unless it runs already. Returns when it answers.

        Raises:
            RabbitMQSetupError: there is no RabbitMQ, or the node cannot be started.
        """
        if self.running():
            return self
        spec = self._spec()
        engine = self._engine = self._engine or provision.engine(self._wanted_version)
        engine.launch(spec)
        self._await_greeting(engine)
        self._write_record(engine, spec)
        return self

    def stop(self) -> None:
        """Shut the node down cleanly, keeping its data. Returns when all its processes have ended."""
        if self._engine is not None:
            self._engine.stop()

    def kill(self) -> None:
        """Kill the node with SIGKILL. Its data is kept in the state in which a crash leaves it."""
        if self._engine is not None:
            self._engine.kill()

    def freeze(self) -> None:
        """Suspend the node: its connections stay open, and nothing answers."""
        if self._engine is not None:
            self._engine.freeze()

    def thaw(self) -> None:
        """Let a frozen node run on."""
        if self._engine is not None:
            self._engine.thaw()

    def change_engine(self, engine: Engine) -> None:
        """Run a stopped node by another engine, such as one of another version, from its next start on.

        Raises:
            NodeError: the node runs.
        """
        if self.running():
            raise NodeError("this node runs: stop it before you change its engine")
        self._engine = engine

    def restart(self) -> "Node":
        """Stop the node, and start it on the same port with the same data."""
        self.stop()
        return self.start()

    def remove(self) -> None:
        """Kill the node and delete all its files."""
        self.kill()
        if self._engine is not None:
            self._engine.remove()
        if self._home is not None:
            shutil.rmtree(self._home, ignore_errors=True)
        self._home = None if self._home_is_ours else self._home

    def ctl(self, *args: str, timeout_seconds: float = CTL_SECONDS, tool: str = "rabbitmqctl") -> str:
        """Run `rabbitmqctl --silent`, or another tool of the server, with these arguments and return its output.

        Raises:
            CommandError: the command failed; the message is the tool's own.
            NodeError: the node was never started.
        """
        if self._engine is None:
            raise NodeError("this node was never started")
        return self._engine.ctl(args, timeout_seconds, tool)

    def log_tail(self, lines: int = LOG_TAIL_LINES) -> str:
        """The last lines of the server's log."""
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
        if not self.identity.enter and not port_is_free(self.port):
            raise NodeError(f"Port {self.port} is in use by another program: omit --port to use a free one.")
        self._home = self._home or Path(tempfile.mkdtemp(prefix="floodgate-rabbitmq-"))
        self._home.mkdir(parents=True, exist_ok=True)
        return NodeSpec(self._home, self._ports, self._conf, self._plugins, self._detached, self.identity)

    def _await_greeting(self, engine: Engine) -> None:
        deadline = time.monotonic() + START_SECONDS
        while engine.running() and time.monotonic() < deadline:
            greeting = greet(self.address, self.port)
            if greeting is not None and engine.booted():
                self._version = greeting.version
                return
            time.sleep(POLL_SECONDS)
        why = f"did not answer within {START_SECONDS:.0f} s" if engine.running() else "exited while starting"
        self.kill()
        raise NodeError(f"RabbitMQ on port {self.port} {why}; the end of its log:\n{self.log_tail()}")

    def _write_record(self, engine: Engine, spec: NodeSpec) -> None:
        record = {"version": self._version, "ports": asdict(spec.ports), "engine": engine.record()}
        (spec.home / "node.json").write_text(json.dumps(record))
