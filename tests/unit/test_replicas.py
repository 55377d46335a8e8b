"""The judgement of a cluster's state: one sentence for each fault, with what to do."""

from __future__ import annotations

from dataclasses import replace

from floodgate.overview.replicas import ClusterMember, ClusterState, QueueReplicas, faults, leaders

NAMES = ("a", "b", "c")
NODES = tuple(ClusterMember(name, running=True, tick_seconds=10, version=(4, 3, 6)) for name in NAMES)
SOUND = ClusterState(NODES, tuple(QueueReplicas(f"q{n}", NAMES, NAMES, NAMES[n % 3]) for n in range(9)), True)


def led_by(*leads: str | None) -> ClusterState:
    queues = tuple(QueueReplicas(f"q{n}", NAMES, NAMES, leader) for n, leader in enumerate(leads))
    return replace(SOUND, queues=queues)


def test_a_sound_cluster_has_no_faults_and_says_how_the_leaders_are_spread() -> None:
    assert faults(SOUND) == []
    assert str(SOUND) == (
        "3 of 3 nodes run; the 9 queues have all their replicas; the nodes lead 3/3/3 of them; "
        "the metadata is in Khepri"
    )


def test_metadata_in_mnesia_is_a_fault() -> None:
    (fault,) = faults(replace(SOUND, raft_metadata=False))
    assert fault.endswith("run `rabbitmqctl enable_feature_flag --opt-in khepri_db` once.")


def test_a_single_node_has_no_faults() -> None:
    alone = ClusterState(NODES[:1], (QueueReplicas("q", ("a",), ("a",), "a"),), False)
    assert faults(alone) == []
    assert str(alone) == "a single node"


def test_a_node_that_is_down_is_named_with_the_queues_that_lack_it() -> None:
    nodes = (*NODES[:2], ClusterMember("c", running=False))
    queues = tuple(replace(queue, online=("a", "b"), leader="ab"[n % 2]) for n, queue in enumerate(SOUND.queues))
    down, offline = faults(replace(SOUND, nodes=nodes, queues=queues))
    assert down.startswith("Node c is down: start it")
    assert offline == "9 queues (q0, q1, q2, …) have a replica on c that is offline: start it."


def test_two_nodes_are_a_fault() -> None:
    nodes, both = NODES[:2], NAMES[:2]
    two = ClusterState(nodes, tuple(QueueReplicas(f"q{n}", both, both, both[n % 2]) for n in range(4)), True)
    (fault,) = faults(two)
    assert "add a third" in fault


def test_too_few_replicas_are_a_fault() -> None:
    queues = (QueueReplicas("q0", ("a",), ("a",), "a"), *SOUND.queues[1:])
    assert faults(replace(SOUND, queues=queues)) == [
        "1 queue (q0) has fewer than 3 replicas: run `rabbitmq-queues grow NODE all` for each node that lacks them."
    ]


def test_a_queue_without_a_leader_is_a_fault() -> None:
    assert any("1 queue (q1) has no leader" in fault for fault in faults(led_by("a", None, "b", "c")))


def test_unevenly_spread_leaders_are_a_fault() -> None:
    (fault,) = faults(led_by(*"aaaaaaaaa"))
    assert fault.endswith("(a leads 9, b leads 0, c leads 0): run `rabbitmq-queues rebalance quorum`.")
    assert faults(led_by(*"aaaabbbcc")) == []
    assert leaders(led_by(*"aaab")) == {"a": 3, "b": 1, "c": 0}


def test_an_unresolved_partition_is_a_fault() -> None:
    nodes = (replace(NODES[0], lost=("c",)), *NODES[1:])
    (fault,) = faults(replace(SOUND, nodes=nodes))
    assert fault.startswith("Node a was split from c and has not rejoined")
    assert "stop_app" in fault


def test_a_long_net_ticktime_is_a_fault() -> None:
    nodes = (replace(NODES[0], tick_seconds=60), *NODES[1:])
    (fault,) = faults(replace(SOUND, nodes=nodes))
    assert "net_ticktime = 5" in fault


def test_a_version_whose_ladder_may_stand_still_is_a_fault() -> None:
    nodes = (
        replace(NODES[0], version=(4, 1, 4)),
        replace(NODES[1], version=(4, 1, 5)),
        replace(NODES[2], version=None),
    )
    (fault,) = faults(replace(SOUND, nodes=nodes))
    assert fault.startswith("RabbitMQ 4.1.4 runs on a: ")
    assert fault.endswith("Upgrade to 4.2 or later.")


def test_only_the_named_queues_are_judged() -> None:
    assert [queue.queue for queue in SOUND.of({"q1"}).queues] == ["q1"]
