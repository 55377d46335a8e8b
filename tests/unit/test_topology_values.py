"""The topology as values: names and arguments are a public contract."""

import pytest

from floodgate.broker.amqp import topology
from floodgate.broker.amqp.topology import Queue, Role
from floodgate.broker.errors import TopologyError
from floodgate.broker.messages import queue_names


def test_partition_numbers_have_two_digits_and_from_a_hundred_three() -> None:
    assert queue_names.send_queue("default", "bulk", 7) == "send.default.bulk.07"
    assert queue_names.send_queue("default", "bulk", 100) == "send.default.bulk.100"


def test_a_partition_is_a_safe_single_active_consumer_quorum_queue() -> None:
    assert topology.arguments(Queue("send.news.bulk.00", Role.SEND, dead_letters="dead.news"), (4, 0, 5)) == {
        "x-queue-type": "quorum",
        "x-single-active-consumer": True,
        "x-delivery-limit": 20,
        "x-dead-letter-exchange": "floodgate.dead",
        "x-dead-letter-routing-key": "dead.news",
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }


def test_a_dead_letter_has_no_time_limit_and_survives_any_number_of_reads() -> None:
    assert topology.arguments(Queue("dead.news", Role.DEAD), (4, 3, 6)) == {
        "x-queue-type": "quorum",
        "x-delivery-limit": 1_000_000_000,
    }


def test_a_ladder_level_waits_its_time_and_forwards_safely() -> None:
    level = Queue("floodgate.delay.03", Role.LEVEL, level=3)
    assert topology.arguments(level, (4, 0, 5)) == {
        "x-queue-type": "quorum",
        "x-message-ttl": 1000,
        "x-dead-letter-exchange": "floodgate.delay.02",
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }


def test_every_bot_and_priority_has_its_partitions_and_every_bot_its_dead_letters() -> None:
    names = {queue.name for queue in topology.pipeline(["a", "b"], 2).queues}
    sends = {name for name in names if name.startswith("send.")}
    partitions = {f"send.{bot}.{kind}.0{n}" for bot in "ab" for kind in ("interactive", "bulk") for n in (0, 1)}
    assert sends == partitions | {"send.a.answers", "send.b.answers"}
    assert {name for name in names if name.startswith("dead.")} == {
        "dead.a",
        "dead.b",
        "dead.malformed",
        "dead.unroutable",
    }


def test_every_queue_with_dead_lettering_has_its_dead_letter_queue_bound() -> None:
    whole = topology.pipeline(["a"], 1, work_queues=["mail"])
    bound = {binding.key for binding in whole.bindings if binding.exchange == queue_names.DEAD_EXCHANGE}
    assert {queue.dead_letters for queue in whole.queues if queue.dead_letters} <= bound
    assert queue_names.MALFORMED_QUEUE in bound


@pytest.mark.parametrize(
    ("queue", "dead"),
    [
        ("send.news.bulk.03", "dead.news"),
        ("mail", "dead.mail"),
        ("send.news.answers", "dead.news"),
        ("send.it", "dead.send.it"),
    ],
)
def test_each_queue_has_its_own_dead_letter_queue(queue: str, dead: str) -> None:
    assert queue_names.dead_queue_of(queue) == dead


@pytest.mark.parametrize("name", ["a.*", "#", "", "x" * 191])
def test_a_queue_name_that_cannot_be_routed_to_is_refused(name: str) -> None:
    with pytest.raises(TopologyError, match="cannot be used in a routing pattern"):
        topology.pipeline([], 1, work_queues=[name])
