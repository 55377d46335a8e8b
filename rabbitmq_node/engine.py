"""The interface of an engine, which runs a node: as local processes (`local`) or in a container (`compose`)."""

import random
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

# Below the kernel's ephemeral range (32768 and up). While a node is down, a port in that range could be given to a
# client's own outgoing connection: the client would talk to itself, and the node could not come back.
PORTS = range(21000, 32000)
PORT_ATTEMPTS = 100


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports of a node, on the loopback only."""

    amqp: int
    distribution: int
    mapper: int


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """The name of a node, and where it is reached. The default is a node by itself, on the loopback."""

    name: str = "floodgate@localhost"  # localhost resolves on every machine, whatever its host name
    client_address: str = "127.0.0.1"
    peer_address: str = "127.0.0.1"
    ports: Ports | None = None
    """The ports to use; None means free ones."""
    enter: tuple[str, ...] = ()
    """The command, to be followed by another one, that enters the node's network namespace."""
    cookie: str | None = None
    """The secret that the nodes of a cluster share; None means one of the node's own."""
    feature_flags: tuple[str, ...] = ()
    """All feature flags that the node enables at its first start; none means RabbitMQ's own choice."""

    @property
    def has_long_name(self) -> bool:
        """Whether the name's host contains a dot, which Erlang has to be told."""
        return "." in self.name.partition("@")[2]


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """The properties that distinguish one node from another."""

    home: Path
    ports: Ports
    conf: Mapping[str, str] = field(default_factory=dict)
    plugins: tuple[str, ...] = ()
    detached: bool = False
    identity: NodeIdentity = field(default_factory=NodeIdentity)


class Engine(Protocol):
    """Runs one node. Use from one thread at a time; `stop`, `kill` and `remove` may be called twice, or unstarted."""

    def launch(self, spec: NodeSpec) -> None:
        """Start the node without waiting; it answers some seconds later."""

    def running(self) -> bool:
        """Whether the node runs, whether or not it answers."""

    def booted(self) -> bool:
        """Whether the node has reported that its start is complete; it listens about 100 ms before that."""

    def stop(self) -> None:
        """Shut the node down cleanly, and return when it has ended. Its data is kept."""

    def kill(self) -> None:
        """Send SIGKILL, and return when the node has ended. Its data is kept."""

    def freeze(self) -> None:
        """Suspend all processes of the node. Its connections stay open, and nothing answers."""

    def thaw(self) -> None:
        """Let a frozen node run on."""

    def remove(self) -> None:
        """Delete the files that a stopped node has outside of its home."""

    def ctl(self, args: Sequence[str], timeout_seconds: float, tool: str = "rabbitmqctl") -> str:
        """Run `rabbitmqctl`, or another tool of the server, and return its output.

        Raises:
            CommandError: the command failed.
        """

    def log_tail(self, lines: int) -> str:
        """The last lines of the server's log."""

    def record(self) -> dict[str, object]:
        """The JSON values from which `provision.adopt` finds the running node again."""


def free_ports(amqp: int | None = None) -> Ports:
    """Pick three ports that are free now; the first is `amqp` if given. Another program may still take them first."""
    chosen = [amqp] if amqp else []
    while len(chosen) < 3:
        chosen.append(_free_port(taken=chosen))
    return Ports(*chosen)


def port_is_free(port: int) -> bool:
    """Whether a server could listen on a port of the loopback interface."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _free_port(taken: Sequence[int]) -> int:
    for port in random.sample(PORTS, PORT_ATTEMPTS):
        if port not in taken and port_is_free(port):
            return port
    raise OSError(f"none of {PORT_ATTEMPTS} ports tried between {PORTS.start} and {PORTS.stop} is free")
