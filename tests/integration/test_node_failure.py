"""A node of a cluster is killed under load, as `./scripts/test --cluster` does it; here its pause is not judged."""

from __future__ import annotations

import pytest

from benchmarks.failures.cluster import NodeFailure
from benchmarks.failures.play import play
from benchmarks.failures.row import NOTHING
from rabbitmq_node.cluster import Cluster, ClusterNode
from tests.waiting import until

FEW = {"partitions": 4, "update_partitions": 1}


@pytest.mark.timeout(300)  # it starts the cluster, and waits for a node to come back, on a machine that may be busy
def test_nothing_is_lost_doubled_or_disordered_when_a_node_that_leads_is_killed(cluster: Cluster) -> None:
    def kill(_: Cluster, node: ClusterNode) -> None:
        node.kill()
        until(lambda: node not in cluster.leaders().values(), 60)
        node.start()

    row = NodeFailure("SIGKILL of a node that leads", kill, NOTHING, cluster=lambda: cluster, settings=FEW)
    result = play(row, after_seconds=2, drain_seconds=60)
    assert result.missed == (), result.figures
    assert result.figures["accepted"] > 60
