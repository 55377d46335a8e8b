"""RabbitMQ: what a node's failure costs in a cluster of three, with every client on the node that fails.

Workers and client connect while the other nodes refuse connections, so that the worst case is played each time and not
one in three. The node leads its share of the queues.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks.failures.row import NOTHING, Scene, Servers, within
from benchmarks.stage.scenarios import Target
from rabbitmq_node import network
from rabbitmq_node.cluster import Cluster, ClusterNode
from rabbitmq_node.errors import NodeError

REFUSE: Final = "rabbit_maintenance:suspend_all_client_listeners()."
ACCEPT: Final = "rabbit_maintenance:resume_all_client_listeners()."
NODE: Final = 0
DOWN_SECONDS: Final = 10.0

Act = Callable[[Cluster, ClusterNode], None]


@dataclass(slots=True)
class SharedCluster:
    """One cluster for all rows, started by the first one that needs it. One thread only."""

    version: str | None = None
    _cluster: Cluster | None = None

    def get(self) -> Cluster:
        """The cluster, with all nodes well.

        Raises:
            RabbitMQSetupError: it cannot be started.
        """
        if self._cluster is None:
            self._cluster = Cluster(self.version).start()
        self._cluster.heal()
        self._cluster.await_complete()
        return self._cluster

    def stop(self) -> None:
        """Safe to call twice, and unstarted."""
        if self._cluster is not None:
            self._cluster.stop()
            self._cluster = None


SHARED: Final = SharedCluster()


OLD: Final = SharedCluster("4.0")
# Earlier versions may hold jobs back after a lost link: see docs/clusters.md.
NEW: Final = SharedCluster("4.3")


def stop() -> None:
    """Stop what the rows share."""
    SHARED.stop()
    OLD.stop()
    NEW.stop()


@dataclass(frozen=True, slots=True)
class NodeFailure:
    """One way in which a node fails. ``act`` breaks it, waits, and repairs it; ``cluster`` returns a sound one."""

    name: str
    act: Act
    targets: tuple[Target, ...]
    cuts: bool = False
    cluster: Callable[[], Cluster] = SHARED.get
    settings: Mapping[str, Any] = field(default_factory=dict)

    def why_not(self) -> str | None:
        return network.why_not() if self.cuts else None

    @contextlib.contextmanager
    def servers(self, home: Path) -> Iterator[Servers]:
        cluster = self.cluster()
        others = [node for number, node in enumerate(cluster.nodes) if number != NODE]

        def tell_others(expression: str) -> None:
            with ThreadPoolExecutor(len(others), thread_name_prefix="benchmark-cluster") as pool:
                list(pool.map(lambda node: node.ctl("eval", expression), others))

        with contextlib.ExitStack() as stack:
            stack.callback(tell_others, ACCEPT)
            stack.callback(cluster.heal)
            tell_others(REFUSE)
            state = f"sqlite:///{home}/state.db"
            yield Servers(cluster.url, state, self.settings, before_striking=lambda: tell_others(ACCEPT))

    def strike(self, scene: Scene) -> None:
        cluster = self.cluster()
        node = cluster.nodes[NODE]
        if node not in cluster.leaders().values():
            raise NodeError(f"node {node.number} leads no queue, so its loss would prove nothing")
        self.act(cluster, node)


def _kill(_: Cluster, node: ClusterNode) -> None:
    node.kill()
    time.sleep(DOWN_SECONDS)
    node.start()


def _roll(cluster: Cluster, _: ClusterNode) -> None:
    cluster.roll()


def _upgrade(cluster: Cluster, _: ClusterNode) -> None:
    """As docs/clusters.md describes it, for a cluster whose metadata is in Khepri already."""
    cluster.nodes[NODE].ctl("enable_feature_flag", "all")
    cluster.upgrade("4.3")
    cluster.nodes[NODE].ctl("enable_feature_flag", "all")


def _freeze(seconds: float) -> Act:
    def act(_: Cluster, node: ClusterNode) -> None:
        node.freeze()
        time.sleep(seconds)
        node.thaw()

    return act


def _cut_link(seconds: float) -> Act:
    """Longer than ``net_ticktime``, so that the two nodes take each other for lost, and the third takes neither."""

    def act(cluster: Cluster, node: ClusterNode) -> None:
        node.split_from(cluster.nodes[NODE - 1])
        time.sleep(seconds)
        node.heal()

    return act


def _cut(seconds: float, cut: Callable[[ClusterNode], None]) -> Act:
    def act(_: Cluster, node: ClusterNode) -> None:
        cut(node)
        time.sleep(seconds)
        node.heal()

    return act


ROWS: Final = (
    NodeFailure("SIGKILL of the node that leads", _kill, within(1.0)),
    NodeFailure("a node frozen 20 s", _freeze(20.0), within(8.0)),
    NodeFailure("a node cut off 60 s", _cut(60.0, ClusterNode.cut_off), within(15.0, 15.0), cuts=True),
    NodeFailure("a node split from its peers 60 s", _cut(60.0, ClusterNode.split_from_peers), within(20.0), cuts=True),
    NodeFailure("a link between two nodes lost 9 s, 4.3", _cut_link(9.0), within(15.0), cuts=True, cluster=NEW.get),
    NodeFailure("rolling restart of all nodes", _roll, within(6.0)),
    NodeFailure("upgrade of all nodes, 4.0 to 4.3", _upgrade, NOTHING, cluster=OLD.get),
)
