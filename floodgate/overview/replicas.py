"""The state of a RabbitMQ cluster: which nodes run, where each queue has its replicas, and who leads it.

AMQP does not tell, so it is read from RabbitMQ's management API. :func:`faults` judges it; the rest reads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from urllib.parse import quote

from floodgate.broker.amqp.addresses import parse_address
from floodgate.broker.amqp.connection import version_tuple
from floodgate.broker.settings.model import Settings
from floodgate.overview.management import AskPath, ask_management

WANTED_REPLICAS: Final = 3
"""How many replicas a queue has where there are so many nodes: one may fail, and the other two are a majority."""
MOST_TICK_SECONDS: Final = 20
"""The largest `net_ticktime` that is not a fault. rabbitmq/rabbitmq.conf sets 5."""
HANDS_ON_ALWAYS: Final = (4, 1, 5)
"""The first version of RabbitMQ whose queues go on taking what other queues hand on to them after two nodes have lost
sight of each other: its change b66dc401, "QQ: fix resend issues after network partition"."""
PAGE: Final = 500
MOST_PAGES: Final = 100
# Leaders are unevenly spread if a node leads less than a third of its share, or more than twice as many.
LEAST_SHARE: Final = 1 / 3
MOST_SHARE: Final = 2.0
SHOWN: Final = 3


@dataclass(frozen=True, slots=True)
class ClusterMember:
    """One node as the others see it."""

    name: str
    running: bool
    lost: tuple[str, ...] = ()
    """The nodes that it lost contact with in a partition that has not been resolved."""
    tick_seconds: int | None = None
    """Its `net_ticktime`; None if it is down."""
    version: tuple[int, ...] | None = None
    """The version of RabbitMQ that it runs; None if it is down."""


@dataclass(frozen=True, slots=True)
class QueueReplicas:
    """The nodes that hold a queue's replicas, those of them that are online, and the one that leads."""

    queue: str
    members: tuple[str, ...]
    online: tuple[str, ...]
    leader: str | None


@dataclass(frozen=True, slots=True)
class ClusterState:
    """All nodes, and the queues of one vhost."""

    nodes: tuple[ClusterMember, ...]
    queues: tuple[QueueReplicas, ...]
    raft_metadata: bool
    """Whether the metadata is kept in Khepri, which needs no handling of partitions, and not in Mnesia."""

    def of(self, names: Collection[str]) -> ClusterState:
        """The same with these queues only."""
        kept = tuple(queue for queue in self.queues if queue.queue in names)
        return ClusterState(self.nodes, kept, self.raft_metadata)

    def __str__(self) -> str:
        running = sum(node.running for node in self.nodes)
        if len(self.nodes) == 1:
            return "a single node"
        led = "/".join(str(count) for count in leaders(self).values())
        metadata = "Khepri" if self.raft_metadata else "Mnesia"
        return (
            f"{running} of {len(self.nodes)} nodes run; the {len(self.queues)} queues have all their replicas; the "
            f"nodes lead {led} of them; the metadata is in {metadata}"
        )


def leaders(state: ClusterState) -> dict[str, int]:
    """How many queues each running node leads, by its name."""
    counts = Counter(queue.leader for queue in state.queues)
    return {node.name: counts[node.name] for node in state.nodes if node.running}


def faults(state: ClusterState) -> list[str]:
    """Return one sentence for everything that makes the loss of a node worse than a pause, and what to do. Pure."""
    return [*_node_faults(state), *_replica_faults(state), *_leader_faults(state)] if len(state.nodes) > 1 else []


def _node_faults(state: ClusterState) -> Iterator[str]:
    if not state.raft_metadata:
        yield (
            "The metadata is in Mnesia, in which a node that was frozen or cut off may stay split from the others: run "
            "`rabbitmqctl enable_feature_flag --opt-in khepri_db` once."
        )
    if old := [node for node in state.nodes if node.version is not None and node.version < HANDS_ON_ALWAYS]:
        version, names = ".".join(map(str, old[0].version or ())), ", ".join(node.name for node in old)
        yield (
            f"RabbitMQ {version} runs on {names}: after two nodes have lost sight of each other for some seconds, it "
            "may hold back jobs of the delay ladder until a queue's leader moves, and a chat waits for them no longer "
            "than 200 s. Upgrade to 4.2 or later."
        )
    if len(state.nodes) == 2:
        yield (
            "The cluster has two nodes, and all queues stop when either fails: add a third, and run "
            "`rabbitmq-queues grow NODE all` for it."
        )
    for node in state.nodes:
        if not node.running:
            yield f"Node {node.name} is down: start it, or run `rabbitmqctl forget_cluster_node {node.name}` for good."
        if node.lost:
            yield (
                f"Node {node.name} was split from {', '.join(node.lost)} and has not rejoined: run `rabbitmqctl "
                "stop_app` and `rabbitmqctl start_app` on the side with fewer nodes."
            )
        if node.tick_seconds is not None and node.tick_seconds > MOST_TICK_SECONDS:
            yield (
                f"Node {node.name} notices a silent node after {node.tick_seconds} s: set net_ticktime = 5 in "
                "rabbitmq.conf on all nodes, as rabbitmq/rabbitmq.conf does, and restart them one by one."
            )


def _replica_faults(state: ClusterState) -> Iterator[str]:
    wanted = min(WANTED_REPLICAS, len(state.nodes))
    if few := [queue.queue for queue in state.queues if len(queue.members) < wanted]:
        yield (
            f"{_queues(few)} fewer than {wanted} replicas: run `rabbitmq-queues grow NODE all` for each node that "
            "lacks them."
        )
    if dead := [queue.queue for queue in state.queues if queue.leader is None]:
        yield f"{_queues(dead)} no leader, because most of the replicas are offline: start the nodes that are down."
    for node in state.nodes:
        if away := [q.queue for q in state.queues if node.name in q.members and node.name not in q.online]:
            remedy = "wait a minute, then restart it" if node.running else "start it"
            yield f"{_queues(away)} a replica on {node.name} that is offline: {remedy}."


def _leader_faults(state: ClusterState) -> Iterator[str]:
    led = leaders(state)
    share = sum(led.values()) / max(1, len(led))
    if share < len(led) or all(LEAST_SHARE * share <= count <= MOST_SHARE * share for count in led.values()):
        return
    counts = ", ".join(f"{name} leads {count}" for name, count in led.items())
    yield f"The leaders of the queues are spread unevenly ({counts}): run `rabbitmq-queues rebalance quorum`."


def _queues(names: list[str]) -> str:
    shown = ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
    return f"{len(names)} queue{'s' * (len(names) > 1)} ({shown}) {'have' if len(names) > 1 else 'has'}"


def read_cluster(settings: Settings) -> ClusterState:
    """Read the state of the cluster from the first address of the management API that answers.

    Raises:
        AccessRefusedError: the account is wrong or lacks the tag `monitoring`.
        RabbitMQUnreachableError: no address answers.
    """
    return ask_management(settings, partial(_read, parse_address(settings.rabbitmq_urls[0]).vhost))


def _read(vhost: str, ask: AskPath) -> ClusterState:
    nodes = [_node(each) for each in ask("nodes")]
    flags = {each["name"]: each["state"] for each in ask("feature-flags")}
    return ClusterState(tuple(nodes), tuple(_replicas(ask, vhost)), flags.get("khepri_db") == "enabled")


def _node(fields: dict[str, Any]) -> ClusterMember:
    return ClusterMember(
        name=str(fields["name"]),
        running=bool(fields["running"]),
        lost=tuple(fields.get("partitions") or ()),
        tick_seconds=fields.get("net_ticktime"),
        version=next(
            (version_tuple(each["version"]) for each in fields.get("applications") or () if each["name"] == "rabbit"),
            None,
        ),
    )


def _replicas(ask: AskPath, vhost: str) -> Iterator[QueueReplicas]:
    # Without statistics, which are up to five seconds old, the nodes themselves are asked.
    path = f"queues/{quote(vhost, safe='')}?disable_stats=true&enable_queue_totals=true&page_size={PAGE}&page="
    for number in range(1, MOST_PAGES + 1):
        page = ask(f"{path}{number}")
        yield from _as_replicas(page["items"])
        if number >= int(page["page_count"]):
            return


def _as_replicas(items: Iterable[dict[str, Any]]) -> Iterator[QueueReplicas]:
    for fields in items:
        if fields.get("type") == "quorum":
            online = tuple(fields.get("online") or ())
            leader = fields.get("leader") or None
            yield QueueReplicas(
                str(fields["name"]), tuple(fields.get("members") or ()), online, leader if leader in online else None
            )
