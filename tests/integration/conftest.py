"""Fixtures of the tests on a real RabbitMQ.

connect        makes Connections that are stopped after the test: connect(url, confirm_timeout_seconds=2)
declared       a vhost with the topology of the bot `b`, two partitions, and the work queue `mail`
memory_alarm   the shared node's, on or off: memory_alarm(True). Off after the test
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from floodgate.broker.amqp import queue_admin, topology
from floodgate.broker.amqp.connections import Connections
from floodgate.broker.settings.model import Settings
from rabbitmq_node.node import Node
from tests.services import Vhost

TOPOLOGY = topology.pipeline(["b"], 2, work_queues=["mail"])

Connect = Callable[..., Connections]


@pytest.fixture
def connect() -> Iterator[Connect]:
    made: list[Connections] = []

    def make(url: str, **settings: Any) -> Connections:
        made.append(Connections(Settings(rabbitmq_url=url, _env_file=None, **settings), "test"))
        return made[-1]

    yield make
    for connections in made:
        connections.stop(2)


@pytest.fixture
def memory_alarm(rabbitmq: Node) -> Iterator[Callable[[bool], str]]:
    is_on = False

    def turn(on: bool) -> str:
        nonlocal is_on
        is_on = on
        return rabbitmq.ctl("set_vm_memory_high_watermark", *(["absolute", "1MB"] if on else ["0.6"]))

    yield turn
    if is_on:
        turn(False)


@pytest.fixture
def declared(vhost: Vhost, connect: Connect) -> Vhost:
    queue_admin.declare(connect(vhost.url), TOPOLOGY)
    return vhost
