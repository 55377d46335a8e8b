"""A network of its own for each node of a cluster, so that one can be cut off without touching the machine's firewall.

    this machine ── floodgate<N> ══ switch ── "clients" bridge ── client interface of each node
                                      └────── "peers" bridge ──── peer interface of each node

The switch and each node have a network namespace, kept by a process that sleeps. A node is cut off by taking its
interface out of a bridge: its packets vanish without an error, as behind a broken switch, and all that its peers or
clients notice is silence. (Addresses are resolved in advance, because a failing ARP request would be an error.)

The kernel removes a namespace and its interfaces with the last process in it. The sleeping processes end with their
owner, however that ends, so nothing is left to clean up; `sweep` removes an interface that remained all the same.

Needs root and the `ip` and `nsenter` commands. Traffic stays on this machine: there is no route to elsewhere.
"""

import contextlib
import ipaddress
import json
import os
import random
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rabbitmq_node.errors import NodeError
from rabbitmq_node.process import ProcessGroup, ProcessId

COMMAND_SECONDS = 10.0
NAMESPACE_SECONDS = 10.0
POLL_SECONDS = 0.005
NETWORKS = 256
# Two ranges that RFC 2544 reserves for tests between devices; one network of each for a cluster.
CLIENTS, PEERS = "198.18", "198.19"
HOST_NUMBER = 1
FIRST_NODE = 11
NOBODY = 10


@dataclass(slots=True)
class Network:
    """Networks of one cluster's nodes, numbered from 0. Use from one thread at a time; `close` may be called twice."""

    size: int
    home: Path
    """A folder for logs."""
    number: int = -1
    """The number of this network among those of this machine; -1 before `open`."""
    _switch: ProcessGroup | None = None
    _nodes: list[ProcessGroup] = field(default_factory=list)

    @property
    def interface(self) -> str:
        """The interface of this machine that leads to the nodes."""
        return f"floodgate{self.number}"

    def client_address(self, node: int) -> str:
        """The address at which clients on this machine reach a node."""
        return f"{CLIENTS}.{self.number}.{FIRST_NODE + node}"

    def peer_address(self, node: int) -> str:
        """The address at which the other nodes reach a node."""
        return f"{PEERS}.{self.number}.{FIRST_NODE + node}"

    def enter(self, node: int) -> tuple[str, ...]:
        """The beginning of a command that runs in a node's network."""
        return _enter(self._nodes[node])

    def open(self) -> "Network":
        """Create the networks.

        Raises:
            NodeError: it is not allowed, or an `ip` command failed.
        """
        sweep()
        try:
            self._switch, *self._nodes = self._namespaces(1 + self.size)
            self._connect_this_machine()
            self._connect_nodes()
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """Remove the networks. Processes in them keep running without a network."""
        if self.number >= 0:
            _ip(f"link delete {self.interface}", must=False)
            self.number = -1
        for group in (self._switch, *self._nodes):
            if group is not None:
                group.kill()
        self._switch, self._nodes = None, []

    def cut(self, node: int, *, clients: bool = False, peers: bool = False) -> None:
        """Lose all packets between a node and its clients, its peers, or both."""
        self._in_switch(f"link set {name}{node} nomaster" for name in _names(clients, peers))

    def cut_link(self, one: int, other: int) -> None:
        """Lose all packets between two nodes, which reach the others."""
        self._link(one, other, NOBODY)

    def heal(self, node: int) -> None:
        """Let packets through again."""
        self._in_switch(f"link set {name}{node} master {name}s" for name in _names(True, True))
        for other in range(self.size):
            if other != node:
                self._link(node, other)

    def _link(self, one: int, other: int, to: int | None = None) -> None:
        """Let two nodes send what is for each other to the machine of that number; None means to each other."""
        for sender, receiver in ((one, other), (other, one)):
            mac = _mac(1, FIRST_NODE + receiver if to is None else to)
            _ip(_neighbour("peer", self.peer_address(receiver), mac), within=self.enter(sender))

    def _namespaces(self, count: int) -> Iterator[ProcessGroup]:
        log, command = self.home / "network.log", ["unshare", "--net", "sleep", "infinity"]
        groups: list[ProcessGroup] = []
        try:
            while len(groups) < count:
                groups.append(ProcessGroup.start(command, dict(os.environ), log, guarded=True))
            for group in groups:
                _await_namespace(group, log)
        except BaseException:
            for group in groups:
                group.kill()
            raise
        return iter(groups)

    def _connect_this_machine(self) -> None:
        """Take a number that neither another cluster nor a route of this machine uses. A client of a former cluster may
        still try to connect to it, so the number is not the lowest one."""
        assert self._switch is not None
        routes = list(_routes())
        for number in random.sample(range(NETWORKS), NETWORKS):
            ranges = [ipaddress.ip_network(f"{prefix}.{number}.0/24") for prefix in (CLIENTS, PEERS)]
            if any(route.overlaps(each) for route in routes for each in ranges):
                continue
            link = f"link add floodgate{number} type veth peer name host netns {self._switch.leader.pid}"
            if _ip(link, must=False):  # otherwise another cluster has just taken this number
                self.number = number
                break
        else:
            raise NodeError(f"All {NETWORKS} networks for clusters are in use on this machine: stop a cluster.")
        name = self.interface
        _ip(
            f"link set {name} alias {_owner()} address {_mac(0, HOST_NUMBER)}",
            f"address add {CLIENTS}.{number}.{HOST_NUMBER}/24 dev {name}",
            f"link set {name} up",
            *(_neighbour(name, self.client_address(node), _mac(0, FIRST_NODE + node)) for node in range(self.size)),
        )

    def _connect_nodes(self) -> None:
        bridges = [f"link add {name} type bridge mcast_snooping 0" for name in ("clients", "peers")]
        self._in_switch([*bridges, "link set clients up", "link set peers up", "link set host master clients up"])
        for node, group in enumerate(self._nodes):
            for name in _names(True, True):
                self._in_switch(
                    [
                        f"link add {name}{node} type veth peer name {name} netns {group.leader.pid}",
                        f"link set {name}{node} master {name}s up",
                    ]
                )
            _ip(*self._of_node(node), within=_enter(group))

    def _of_node(self, node: int) -> Iterator[str]:
        """The commands that set up the interfaces in a node's namespace."""
        yield "link set lo up"
        for kind, (name, address) in enumerate(
            (("client", self.client_address(node)), ("peer", self.peer_address(node)))
        ):
            yield f"link set {name} address {_mac(kind, FIRST_NODE + node)} up"
            yield f"address add {address}/24 dev {name}"
        yield _neighbour("client", f"{CLIENTS}.{self.number}.{HOST_NUMBER}", _mac(0, HOST_NUMBER))
        for other in range(self.size):
            if other != node:
                yield _neighbour("peer", self.peer_address(other), _mac(1, FIRST_NODE + other))

    def _in_switch(self, commands: Iterable[str]) -> None:
        if self._switch is None:
            raise NodeError("this cluster has no network: it is not running")
        _ip(*commands, within=_enter(self._switch))


def sweep() -> None:
    """Remove the interfaces whose owner has ended. There are some only if its guards were killed too."""
    for link in json.loads(_output(["ip", "-j", "link", "show"]) or "[]"):
        owner = re.fullmatch(r"floodgate cluster of (\d+) (\d+)", str(link.get("ifalias", "")))
        if owner and not ProcessId(int(owner[1]), int(owner[2])).alive():
            _ip(f"link delete {link['ifname']}", must=False)


def why_not() -> str | None:
    """The reason why this machine allows no networks for nodes; None if it allows them. Creates and removes one."""
    if os.geteuid() != 0:
        return "only root may create network namespaces"
    missing = [name for name in ("ip", "nsenter", "unshare") if shutil.which(name) is None]
    if missing:
        return f"the command {missing[0]} is missing (Debian and Ubuntu: apt install iproute2 util-linux)"
    try:
        with tempfile.TemporaryDirectory(prefix="floodgate-network-") as home:
            Network(1, Path(home)).open().close()
    except NodeError as error:
        return str(error)
    return None


def _names(clients: bool, peers: bool) -> list[str]:
    return ["client"] * clients + ["peer"] * peers


def _mac(kind: int, number: int) -> str:
    return f"02:f1:00:00:{kind:02x}:{number:02x}"


def _neighbour(interface: str, address: str, mac: str) -> str:
    return f"neighbour replace {address} lladdr {mac} dev {interface} nud permanent"


def _owner() -> str:
    me = ProcessId.of(os.getpid())
    return f"'floodgate cluster of {me.pid} {me.started}'"


def _enter(group: ProcessGroup) -> tuple[str, ...]:
    return ("nsenter", f"--net=/proc/{group.leader.pid}/ns/net", "--")


def _await_namespace(group: ProcessGroup, log: Path) -> None:
    """Wait until the process has left this process's network namespace."""
    mine = Path("/proc/self/ns/net").readlink()
    deadline = time.monotonic() + NAMESPACE_SECONDS
    while group.alive() and time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if Path(f"/proc/{group.leader.pid}/ns/net").readlink() != mine:
                return
        time.sleep(POLL_SECONDS)
    raise NodeError(f"this machine allows no network namespace: {log.read_text(errors='replace').strip()}")


def _routes() -> Iterator[ipaddress.IPv4Network]:
    for route in json.loads(_output(["ip", "-j", "-4", "route", "show", "table", "all"]) or "[]"):
        with contextlib.suppress(ValueError):
            network = ipaddress.IPv4Network(str(route["dst"]).replace("default", "0.0.0.0/0"))
            if network.prefixlen:  # the default route overlaps everything
                yield network


def _ip(*commands: str, within: Iterable[str] = (), must: bool = True) -> bool:
    """Run `ip` commands in one process, up to the first that fails. Returns whether all succeeded."""
    done = subprocess.run(
        [*within, "ip", "-batch", "-"],
        input="\n".join(commands),
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )
    if must and done.returncode != 0:
        raise NodeError(f"this machine allows no networks for nodes: ip: {done.stderr.strip()}")
    return done.returncode == 0


def _output(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False).stdout
