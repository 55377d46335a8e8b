"""What runs a node: processes of this machine (`local`) or a container (`compose`). `node` knows this contract only."""

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
    """Where a node listens, on the loopback only."""

    amqp: int
    distribution: int
    mapper: int


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """All that tells one node from another."""

    home: Path
    ports: Ports
    conf: Mapping[str, str] = field(default_factory=dict)
    plugins: tuple[str, ...] = ()
    detached: bool = False


class Engine(Protocol):
    """Runs one node. Used by one thread at a time; `stop`, `kill` and `remove` may come twice, or unstarted."""

    def launch(self, spec: NodeSpec) -> None:
        """Set the node going; it answers some seconds later."""

    def running(self) -> bool:
        """Whether it is there, answering or not."""

    def booted(self) -> bool:
        """Whether it has said that its start is complete; it listens some 100 ms before that."""

    def stop(self) -> None:
        """Shut down cleanly and return when it is gone; data stays."""

    def kill(self) -> None:
        """SIGKILL and return when it is gone; data stays."""

    def remove(self) -> None:
        """Delete what the node, which runs no more, has outside its home."""

    def ctl(self, args: Sequence[str], timeout_seconds: float) -> str:
        """What `rabbitmqctl` prints. Raises CommandError."""

    def log_tail(self, lines: int) -> str:
        """The last lines of what the server said."""

    def record(self) -> dict[str, object]:
        """What `provision.adopt` needs to find the running node again, in JSON's types."""


def free_ports(amqp: int | None = None) -> Ports:
    """Three ports nobody listens on now, the first as asked for. Another may take them before a node has them."""
    chosen = [amqp] if amqp else []
    while len(chosen) < 3:
        chosen.append(_free_port(taken=chosen))
    return Ports(*chosen)


def port_is_free(port: int) -> bool:
    """Whether a server could listen on this port of the loopback."""
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
    raise OSError(f"no free port among {PORT_ATTEMPTS} tried between {PORTS.start} and {PORTS.stop}")
