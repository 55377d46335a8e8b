"""A cluster of private RabbitMQ nodes on this machine, to try and to test what happens when one of them fails.

    with Cluster() as cluster:                          # three nodes; quorum queues have a member on each
        connect(cluster.url)                            # three addresses, as in FLOODGATE_RABBITMQ_URL
        node = cluster.leader("send.b.interactive.00")
        node.kill()                                     # SIGKILL; its data is kept
        node.start()
        node.freeze(); node.thaw()                      # SIGSTOP: connections stay open, and nothing answers
        node.cut_off(); node.heal()                     # its packets vanish, to clients and to peers
        node.split_from_peers(); node.heal()            # only those to peers do
        node.split_from(other); node.heal()             # only those to one peer do
        node.restart()                                  # a clean stop, as in an upgrade

Where root may create network namespaces, each node has its own (`network`), with fixed ports. Elsewhere the nodes share
the loopback on free ports and cannot be cut off.

State: each node has a temporary home, which is deleted with the cluster. Invariants: `start` returns when all nodes
answer and know each other; `stop` leaves no process, no namespace and no file, in bounded time. The cluster ends with
its program, however that ends.
"""

import re
import secrets
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from floodgate.broker.process.child_guard import ChildGuard
from rabbitmq_node import network, provision
from rabbitmq_node.choice import Plan, UseInstalled, UseTree, choose, parse_version
from rabbitmq_node.engine import Engine, NodeIdentity, Ports, free_ports
from rabbitmq_node.errors import CommandError, NodeError
from rabbitmq_node.facts import gather
from rabbitmq_node.local import LocalEngine
from rabbitmq_node.network import Network
from rabbitmq_node.node import Node
from rabbitmq_node.process import ProcessGroup

SIZE = 3
PORTS = Ports(amqp=5672, distribution=25672, mapper=4369)  # the usual ones: each namespace has its own
MANAGEMENT_PORT = 15672
CTL_SECONDS = 30.0
COMPLETE_SECONDS = 60.0
# The feature flags that new nodes of 4.0 and 4.1 start with: khepri_db, which later versions enable by themselves, and
# the stable ones, because the list replaces RabbitMQ's own. docs/clusters.md says why Khepri is better.
KHEPRI_BY_DEFAULT = (4, 2)
OLD_FEATURE_FLAGS = (
    "khepri_db",
    "message_containers_deaths_v2",
    "quorum_queue_non_voters",
    "rabbit_exchange_type_local_random",
    "rabbitmq_4.0.0",
)
POLL_SECONDS = 0.2
DELETE_LATER = 'sleep 3; rm -rf "$1"'  # when the nodes, which have guards of their own, have ended
# The leaders of all queues of a vhost, as the node that is asked knows them.
LEADERS = """
[{element(4, amqqueue:get_name(Q)), ra_leaderboard:lookup_leader(element(1, amqqueue:get_pid(Q)))}
 || Q <- rabbit_amqqueue:list(<<"VHOST">>), amqqueue:get_type(Q) =:= rabbit_quorum_queue].
"""


class ClusterNode(Node):
    """A node of a cluster, numbered from 1. Use from one thread at a time."""

    def __init__(
        self,
        number: int,
        net: Network | None,
        identity: NodeIdentity,
        *,
        engine: Engine,
        home: Path,
        conf: Mapping[str, str],
        plugins: tuple[str, ...],
    ) -> None:
        super().__init__(engine=engine, home=home, conf=conf, plugins=plugins, identity=identity)
        self.number = number
        self._network = net

    def cut_off(self) -> None:
        """Lose all packets between the node and everybody else.

        Raises:
            NodeError: the nodes share the loopback.
        """
        self._wired().cut(self.number - 1, clients=True, peers=True)

    def split_from_peers(self) -> None:
        """Lose all packets between the node and its peers; clients reach it.

        Raises:
            NodeError: the nodes share the loopback.
        """
        self._wired().cut(self.number - 1, peers=True)

    def split_from(self, other: "ClusterNode") -> None:
        """Lose all packets between the node and one of its peers; both reach the others.

        Raises:
            NodeError: the nodes share the loopback.
        """
        self._wired().cut_link(self.number - 1, other.number - 1)

    def split_from_clients(self) -> None:
        """Lose all packets between the node and its clients; peers reach it.

        Raises:
            NodeError: the nodes share the loopback.
        """
        self._wired().cut(self.number - 1, clients=True)

    def heal(self) -> None:
        """Let packets through again. Does nothing if none were lost."""
        if self._network is not None:
            self._network.heal(self.number - 1)

    def _wired(self) -> Network:
        if self._network is None:
            raise NodeError(f"Node {self.number} cannot be cut off: {network.why_not() or 'it shares the loopback'}.")
        return self._network


class Cluster:
    """Three or more nodes. Use from one thread at a time; `start` and `stop` may be called repeatedly, in any order."""

    def __init__(
        self,
        version: str | None = None,
        *,
        size: int = SIZE,
        conf: Mapping[str, str] | None = None,
        plugins: tuple[str, ...] = (),
        namespaces: bool | None = None,
    ) -> None:
        """Describe a cluster. Nothing happens before `start`.

        Args:
            version: "4.0" or "4.3"; None means any that is available.
            size: the number of nodes.
            conf: lines of rabbitmq.conf for all nodes, which override the repository's.
            plugins: the plugins to enable. With "rabbitmq_management", `management_url` names its addresses.
            namespaces: whether each node has its own network; None means where this machine allows it.
        """
        self.nodes: list[ClusterNode] = []
        self._version = version
        self._size = size
        self._conf = dict(conf or {})
        self._plugins = plugins
        self._namespaces = namespaces
        self._management: list[str] = []
        self._home: Path | None = None
        self._network: Network | None = None
        self._mapper: ProcessGroup | None = None
        self._guard: ChildGuard | None = None

    @property
    def url(self) -> str:
        """The AMQP URLs of all nodes, as FLOODGATE_RABBITMQ_URL takes them."""
        return self.url_of("/")

    def url_of(self, vhost: str) -> str:
        """The AMQP URLs of a vhost on all nodes."""
        return ",".join(node.url_of(vhost) for node in self.nodes)

    @property
    def management_url(self) -> str:
        """The URLs of all nodes' management API; empty without its plugin."""
        return ",".join(self._management)

    @property
    def can_cut(self) -> bool:
        """Whether nodes can be cut off."""
        return self._network is not None

    def start(self) -> Self:
        """Start the cluster unless it runs already. Returns when all nodes answer and know each other.

        Raises:
            RabbitMQSetupError: there is no RabbitMQ, or a node cannot be started.
        """
        if self.nodes:
            return self
        try:
            self._home = Path(tempfile.mkdtemp(prefix="floodgate-cluster-"))
            self._guard = ChildGuard(["sh", "-c", DELETE_LATER, "sh", str(self._home)])
            self._lay_out(self._home)
            self._on_all(Node.start)
            self.await_complete()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Kill all nodes and delete everything. It takes seconds, whatever state the nodes are in."""
        self._on_all(Node.remove)
        self.nodes, self._management = [], []
        if self._mapper is not None:
            self._mapper.kill()
            self._mapper = None
        if self._network is not None:
            self._network.close()
            self._network = None
        if self._home is not None:
            shutil.rmtree(self._home, ignore_errors=True)
            self._home = None
        if self._guard is not None:
            self._guard.release()
            self._guard = None

    def heal(self) -> None:
        """Bring all nodes back: start, thaw and reconnect them."""
        for node in self.nodes:
            node.thaw()
            node.heal()
        self._on_all(Node.start)

    def await_complete(self) -> None:
        """Wait until each node sees all others, which takes seconds after a failure is repaired.

        Raises:
            NodeError: that does not happen within a minute.
        """
        deadline = time.monotonic() + COMPLETE_SECONDS
        while not all(self._seen_by(node) == self._size for node in self.nodes):
            if time.monotonic() > deadline:
                seen = ", ".join(f"{node.number}: {self._seen_by(node)}" for node in self.nodes)
                raise NodeError(f"The nodes have not found each other; how many each sees: {seen}.")
            time.sleep(POLL_SECONDS)

    def _seen_by(self, node: ClusterNode) -> int:
        try:
            return int(node.ctl("eval", "length(rabbit_nodes:list_running()).", timeout_seconds=CTL_SECONDS))
        except (CommandError, ValueError):
            return 0

    def roll(self) -> None:
        """Restart one node after the other, each when the one before is back: a rolling restart."""
        for node in self.nodes:
            node.restart()

    def upgrade(self, version: str) -> None:
        """Stop all nodes, and start them with their data on another version of RabbitMQ.

        Raises:
            RabbitMQSetupError: there is no such version, or a node cannot be started.
        """
        engines = local_engines(local_plan(version), self._size)
        self._on_all(Node.stop)
        for node, each in zip(self.nodes, engines, strict=True):
            node.change_engine(each)
        self._on_all(Node.start)
        self.await_complete()

    def leaders(self, vhost: str = "/") -> dict[str, ClusterNode]:
        """The node that leads each quorum queue; a queue without a leader is left out.

        Raises:
            NodeError: no node answers.
        """
        by_name = {node.name: node for node in self.nodes}
        found = re.findall(r"<<\"([^\"]+)\">>,\s*\{[^,]+,\s*'?([^'}]+)'?\}", self.ask(LEADERS.replace("VHOST", vhost)))
        return {queue: by_name[name] for queue, name in found if name in by_name}

    def leader(self, queue: str, vhost: str = "/") -> ClusterNode:
        """The node that leads a quorum queue.

        Raises:
            NodeError: no node answers, or the queue does not exist or has no leader.
        """
        node = self.leaders(vhost).get(queue)
        if node is None:
            raise NodeError(f"The queue {queue!r} has no leader, or does not exist.")
        return node

    def busiest(self, vhost: str = "/") -> ClusterNode:
        """The node that leads most queues.

        Raises:
            NodeError: no node answers.
        """
        counts = Counter(node.number for node in self.leaders(vhost).values())
        return max(self.nodes, key=lambda node: counts[node.number])

    def ask(self, expression: str) -> str:
        """Evaluate an Erlang expression on the first node that answers.

        Raises:
            NodeError: no node answers.
        """
        for node in self.nodes:
            try:
                return node.ctl("eval", expression, timeout_seconds=CTL_SECONDS)
            except CommandError:
                continue
        raise NodeError("no node of the cluster answers")

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _lay_out(self, home: Path) -> None:
        """Create the network and describe the nodes."""
        alone = network.why_not() if self._namespaces is None else None
        if self._namespaces or (self._namespaces is None and alone is None):
            self._network = Network(self._size, home).open()
        plan = local_plan(self._version)
        engines = local_engines(plan, self._size)
        flags = OLD_FEATURE_FLAGS if version_of(plan) < KHEPRI_BY_DEFAULT else ()
        identities = [replace(each, feature_flags=flags) for each in self._identities(secrets.token_hex(16))]
        if self._network is None:
            # An address of its own is what lets a node have a port mapper of its own.
            self._mapper = engines[0].start_mapper(identities[0], identities[0].ports or PORTS, home)
        discovery = {
            "cluster_formation.peer_discovery_backend": "classic_config",
            "cluster_formation.target_cluster_size_hint": str(self._size),
            **{
                f"cluster_formation.classic_config.nodes.{n}": identity.name for n, identity in enumerate(identities, 1)
            },
        }
        for number, (identity, each) in enumerate(zip(identities, engines, strict=True), 1):
            self.nodes.append(
                ClusterNode(
                    number,
                    self._network,
                    identity,
                    engine=each,
                    home=home / f"node-{number}",
                    conf={**discovery, **self._listeners(identity), **self._conf},
                    plugins=self._plugins,
                )
            )

    def _identities(self, cookie: str) -> list[NodeIdentity]:
        if self._network is not None:
            net = self._network
            return [
                NodeIdentity(
                    name=f"floodgate{n + 1}@{net.peer_address(n)}",
                    client_address=net.client_address(n),
                    peer_address=net.peer_address(n),
                    ports=PORTS,
                    enter=net.enter(n),
                    cookie=cookie,
                )
                for n in range(self._size)
            ]
        mapper = free_ports().mapper
        return [
            NodeIdentity(name=f"floodgate{n + 1}@localhost", ports=replace(free_ports(), mapper=mapper), cookie=cookie)
            for n in range(self._size)
        ]

    def _listeners(self, identity: NodeIdentity) -> dict[str, str]:
        if "rabbitmq_management" not in self._plugins:
            return {}
        port = MANAGEMENT_PORT if self._network is not None else free_ports().amqp
        self._management.append(f"http://guest:guest@{identity.client_address}:{port}")
        return {"management.tcp.ip": identity.client_address, "management.tcp.port": str(port)}

    def _on_all(self, act: Callable[[Node], object]) -> None:
        """Do the same with all nodes at once; raises the first error when all are done."""
        if not self.nodes:
            return
        with ThreadPoolExecutor(len(self.nodes), thread_name_prefix="cluster") as pool:
            futures = [pool.submit(act, node) for node in self.nodes]
            try:
                wait(futures)
            except BaseException:
                for node in self.nodes:
                    node.kill()  # so that the threads, which wait for their nodes, end at once
                raise
        for future in futures:
            future.result()


def local_plan(version: str | None) -> Plan:
    """The RabbitMQ to run a cluster with. Containers are left to docker-compose.yml's profile `cluster`."""
    return choose(replace(gather(), compose=False), version)


def version_of(plan: Plan) -> tuple[int, int]:
    """The version of a plan's server; (0, 0) if it has none."""
    match plan:
        case UseTree(version, _):
            return parse_version(version)
        case UseInstalled(scripts):
            installed = gather().installed
            return parse_version(installed.version) if installed and installed.scripts == scripts else (0, 0)
        case _:
            return (0, 0)


def local_engines(plan: Plan, count: int) -> list[LocalEngine]:
    """Create engines for nodes of a cluster.

    Raises:
        NoServerError: this machine has no RabbitMQ 4 outside of containers, and none can be installed.
        InstallError: an installer failed.
    """
    engines = [provision.engine_for(plan) for _ in range(count)]
    return [each for each in engines if isinstance(each, LocalEngine)]
