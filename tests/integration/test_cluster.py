"""The private cluster: its nodes form one, and each of the ways in which they fail is what it says."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pika
import pytest

from floodgate.broker.amqp import queue_admin, topology
from floodgate.broker.amqp.connections import Connections
from floodgate.broker.errors import AccessRefusedError
from floodgate.broker.settings.model import load_settings
from floodgate.exporter import Exporter
from floodgate.overview import replicas
from rabbitmq_node import network
from rabbitmq_node.amqp import greet
from rabbitmq_node.cluster import Cluster, ClusterNode
from rabbitmq_node.errors import NodeError
from tests.waiting import until

QUEUES = [f"cluster.{number}" for number in range(9)]
SECONDS = 0.5
TOKEN = "100200300:" + "R" * 35
SCRIPT = Path(__file__).parents[2] / "scripts" / "cluster"


def needs_namespaces() -> None:
    if (reason := network.why_not()) is not None:
        pytest.skip(reason)


def answers(node: ClusterNode) -> bool:
    return greet(node.address, node.port, SECONDS) is not None


@pytest.fixture
def declared(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster with some queues, which were declared on its first node."""
    connection = pika.BlockingConnection(pika.URLParameters(cluster.nodes[0].url))
    channel = connection.channel()
    for name in QUEUES:
        channel.queue_declare(name, durable=True, arguments={"x-queue-type": "quorum"})
    yield cluster
    for name in QUEUES:
        channel.queue_delete(name)
    connection.close()


def test_leaders_are_found(declared: Cluster) -> None:
    leaders = declared.leaders()
    assert set(QUEUES) <= set(leaders)
    assert declared.leader(QUEUES[0]) is leaders[QUEUES[0]]
    with pytest.raises(NodeError, match="does not exist"):
        declared.leader("nothing")


def test_a_frozen_node_accepts_connections_and_answers_none(cluster: Cluster) -> None:
    node = cluster.nodes[2]
    node.freeze()
    assert not answers(node)
    connection = pika.BlockingConnection(pika.URLParameters(cluster.nodes[0].url))
    assert connection.is_open
    connection.close()
    node.thaw()
    until(lambda: answers(node))


def test_a_node_is_cut_off_from_clients_or_from_peers(cluster: Cluster) -> None:
    needs_namespaces()
    node, other = cluster.nodes[1], cluster.nodes[0]
    node.split_from_peers()
    assert answers(node)
    assert not reaches(other, node)
    node.heal()
    assert reaches(other, node)
    node.split_from_clients()
    assert not answers(node)
    assert reaches(other, node)
    node.cut_off()
    assert not reaches(other, node)
    node.heal()
    assert answers(node)


def test_two_nodes_are_split_from_each_other_only(cluster: Cluster) -> None:
    needs_namespaces()
    one, other, third = cluster.nodes
    one.split_from(other)
    assert not (reaches(one, other) or reaches(other, one))
    assert reaches(third, one)
    assert reaches(third, other)
    one.heal()
    assert reaches(other, one)
    assert reaches(one, other)


def reaches(node: ClusterNode, other: ClusterNode) -> bool:
    """Whether a node's namespace reaches another node's port for peers."""
    program = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), float(sys.argv[3]))"
    identity, target = node.identity, other.identity
    assert target.ports is not None
    address = [target.peer_address, str(target.ports.distribution), str(SECONDS)]
    command = [*identity.enter, sys.executable, "-c", program, *address]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.full_length
def test_a_killed_script_leaves_no_node_no_network_and_no_folder(rabbitmq_version: str | None, tmp_path: Path) -> None:
    wanted = ["--version", rabbitmq_version] if rabbitmq_version else []
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    script = subprocess.Popen(
        [SCRIPT, "--nodes", "1", *wanted], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert script.stdout is not None
    host, _, port = script.stdout.readline().partition("@")[2].partition("/")[0].partition(":")
    assert greet(host, int(port)) is not None
    script.send_signal(signal.SIGKILL)
    script.communicate()
    until(lambda: greet(host, int(port), SECONDS) is None)
    until(lambda: not list(tmp_path.iterdir()))
    assert host not in subprocess.run(["ip", "address"], capture_output=True, text=True, check=False).stdout


def test_the_script_stops_at_once_on_an_interrupt(rabbitmq_version: str | None) -> None:
    wanted = ["--version", rabbitmq_version] if rabbitmq_version else []
    script = subprocess.Popen([SCRIPT, *wanted], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert script.stderr is not None
    assert "Starting" in script.stderr.readline()
    script.send_signal(signal.SIGINT)
    _, said = script.communicate(timeout=60)
    assert (script.returncode, said) == (0, "Stopping\n")


def test_replicas_are_judged_removed_added_and_missed(cluster: Cluster) -> None:
    settings = load_settings(
        _env_file=None, rabbitmq_url=cluster.url, rabbitmq_management_url=cluster.management_url, bots={"spread": TOKEN}
    )
    wanted = topology.pipeline(["spread"], 2)
    names = {queue.name for queue in wanted.queues}
    last = cluster.nodes[2]

    def faults() -> list[str]:
        state = replicas.read_cluster(settings).of(names)
        found = replicas.faults(state)
        versions = {node.version for node in state.nodes} - {None}
        if min(versions) < replicas.HANDS_ON_ALWAYS:
            assert f"runs on {', '.join(node.name for node in state.nodes if node.version)}" in found.pop(0)
        return found

    def run(*command: str) -> None:
        cluster.nodes[0].ctl(*command, tool="rabbitmq-queues")

    with Connections(settings, "test") as connections:
        queue_admin.declare(connections, wanted)
        assert faults() == [], "leaders are spread from the start"
        run("shrink", last.name)
        assert "have fewer than 3 replicas" in faults()[0]
        run("grow", last.name, "all")
        run("rebalance", "quorum")
        until(lambda: not faults(), 60)
        last.freeze()
        until(lambda: any(last.name in fault for fault in faults()), 60)
        last.thaw()
        cluster.await_complete()
        queue_admin.delete(connections, names, wanted.counts)


def test_the_exporter_sees_the_alarm_of_a_node_whose_disk_is_full(cluster: Cluster, tmp_path: Path) -> None:
    settings = load_settings(
        _env_file=None,
        rabbitmq_url=cluster.url,
        rabbitmq_management_url=cluster.management_url,
        state_url=f"sqlite:///{tmp_path}/state.db",
        bots={"watched": TOKEN},
    )
    node = cluster.nodes[0]
    with contextlib.closing(Exporter(settings)) as exporter:

        def told(metric: str, labels: str, value: str) -> bool:
            return f'floodgate_rabbitmq_{metric}{{node="{node.name}"{labels}}} {value}' in exporter.text().decode()

        node.ctl("set_disk_free_limit", "900000GB")
        try:
            until(lambda: told("alarm", ',resource="disk"', "1.0"), 60)
            until(lambda: told("disk_limit_bytes", "", "9"), 60)  # 900000 GB or GiB, by version
            assert told("disk_free_bytes", "", "")
            assert told("alarm", ',resource="memory"', "0.0")
        finally:
            node.ctl("set_disk_free_limit", "50MB")


def test_a_wrong_account_of_the_management_api_is_reported_with_the_remedy(cluster: Cluster) -> None:
    url = cluster.management_url.replace("guest:guest", "guest:wrong")
    settings = load_settings(_env_file=None, rabbitmq_url=cluster.url, rabbitmq_management_url=url)
    with pytest.raises(AccessRefusedError, match="monitoring") as refused:
        replicas.read_cluster(settings)
    assert "wrong" not in str(refused.value)
