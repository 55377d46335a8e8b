"""The server's state after declaring, and the effect of conflicting declarations."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial

import pika
import pytest

from floodgate.broker.amqp import delay_ladder, queue_admin, topology
from floodgate.broker.amqp.connections import Connections
from floodgate.broker.amqp.consumer import Delivery
from floodgate.broker.errors import RabbitMQUnreachableError, TopologyError
from floodgate.broker.messages import queue_names
from floodgate.broker.messages.publication import Publication
from tests.draining import drain
from tests.proxy import Proxy
from tests.services import Vhost
from tests.waiting import until

Connect = Callable[..., Connections]
SEND = queue_names.send_queue("b", "bulk", 0)
PIPELINE = topology.pipeline(["b"], 2, work_queues=["mail"])


def queues(vhost: Vhost) -> dict[str, dict[str, object]]:
    rows = json.loads(vhost.ctl("list_queues", "name", "type", "durable", "arguments", "--formatter=json"))
    return {row["name"]: {**row, "arguments": {key: value for key, _, value in row["arguments"]}} for row in rows}


def declare_by_hand(url: str, queue: str, **arguments: object) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(url))
    connection.channel().queue_declare(queue, durable=True, arguments=arguments)
    connection.close()


def test_every_queue_on_the_server_is_a_durable_quorum_queue_as_declared(declared: Vhost) -> None:
    found = queues(declared)
    assert set(found) == {queue.name for queue in PIPELINE.queues}
    for queue in PIPELINE.queues:
        assert (found[queue.name]["type"], found[queue.name]["durable"]) == ("quorum", True)
        assert found[queue.name]["arguments"] == topology.arguments(queue, (4, 0))
    assert not [name for name in found if name.endswith(".DQ")]


def test_declaring_again_changes_nothing(declared: Vhost, connect: Connect) -> None:
    before = queues(declared)
    queue_admin.declare(connect(declared.url), PIPELINE)
    assert queues(declared) == before


def test_a_queue_declared_differently_is_reported_with_both_declarations_and_left_alone(
    vhost: Vhost, connect: Connect
) -> None:
    declare_by_hand(vhost.url, SEND, **{"x-queue-type": "quorum"})
    connections = connect(vhost.url)
    with pytest.raises(TopologyError) as caught:
        queue_admin.declare(connections, PIPELINE)
    said = str(caught.value)
    assert SEND in said
    assert "inequivalent arg 'x-" in said  # the server's declaration
    assert "'x-single-active-consumer': True" in said  # ours
    assert "delete it by hand" in said
    assert queues(vhost)[SEND]["arguments"] == {"x-queue-type": "quorum"}


def test_verify_finds_nothing_wrong_in_a_correct_topology(declared: Vhost, connect: Connect) -> None:
    assert queue_admin.verify(connect(declared.url), PIPELINE) == []


def test_verify_names_everything_missing_or_different_and_creates_nothing(vhost: Vhost, connect: Connect) -> None:
    declare_by_hand(vhost.url, SEND, **{"x-queue-type": "quorum"})
    faults = queue_admin.verify(connect(vhost.url), PIPELINE)
    assert len(faults) == len(PIPELINE.counts) + len(PIPELINE.exchanges) + len(PIPELINE.queues)
    assert [fault for fault in faults if SEND in fault and "exists with other arguments" in fault]
    assert "Queue mail is missing. `floodgate topology apply` creates it." in faults
    assert set(queues(vhost)) == {SEND}


def test_depth_counts_messages_and_reports_missing_queues(declared: Vhost, connect: Connect) -> None:
    connections = connect(declared.url)
    for n in range(3):
        connections.publisher.publish(Publication("", SEND, b"{}", f"id-{n}"))
    assert queue_admin.depth(connections, [SEND, "nowhere", "mail"]) == {SEND: 3, "nowhere": None, "mail": 0}


def test_asking_an_unresponsive_server_ends_at_the_timeout(declared: Vhost, connect: Connect) -> None:
    with Proxy(declared.node.port) as proxy:
        connections = connect(proxy.url(declared.url))
        connections.connect()
        proxy.stall()
        asked = connections.arun(partial(queue_admin._depth, [SEND]), 0.3)
        with pytest.raises(RabbitMQUnreachableError, match="did not answer in time"):
            connections.io.run(asked, 10)


def test_a_poison_message_ends_in_its_bots_dead_letters(declared: Vhost, connect: Connect) -> None:
    connections = connect(declared.url)
    connections.publisher.publish(Publication("", SEND, b"{}", "poison"))
    seen = 0

    def die_of_it(_delivery: Delivery) -> None:
        """A channel that ends in an error counts as a death on every version; returning a message does not on 4.3."""
        nonlocal seen
        seen += 1
        subscription._channel.basic_ack(10**6)

    subscription = connections.subscribe(SEND, "worker", die_of_it, lambda: PIPELINE)
    [(properties, _)] = until(lambda: drain(declared.url, "dead.b"))
    subscription.close()
    assert properties.message_id == "poison"
    assert properties.headers["x-first-death-reason"] == "delivery_limit"
    assert seen == topology.DELIVERY_LIMIT + 1


def test_the_ladder_has_every_level(declared: Vhost) -> None:
    assert {delay_ladder.level_name(level) for level in range(delay_ladder.LEVELS)} <= set(queues(declared))
