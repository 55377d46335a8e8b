"""What a process counts of its connections to RabbitMQ."""

from __future__ import annotations

import pytest

from floodgate.broker.amqp import queue_admin, topology
from floodgate.broker.amqp.connections import Connections
from floodgate.broker.errors import UnroutableError
from floodgate.broker.messages.publication import Publication
from floodgate.broker.process.metrics import CONFIRM, PUBLISHED, RECONNECTS, Metrics
from floodgate.broker.settings.model import Settings
from tests.proxy import Proxy
from tests.services import Vhost
from tests.waiting import until


def message(queue: str) -> Publication:
    return Publication("", queue, b"{}", "an-id")


def test_confirms_failures_and_reconnections_are_counted(vhost: Vhost) -> None:
    counted = Metrics()
    with (
        Proxy(vhost.node.port) as proxy,
        Connections(Settings(_env_file=None, rabbitmq_url=proxy.url(vhost.url)), "test", metrics=counted) as ours,
    ):
        queue_admin.declare(ours, topology.pipeline([], 0, work_queues=["mail"]))
        ours.publisher.publish(message("mail"))
        with pytest.raises(UnroutableError):
            ours.publisher.publish(message("nowhere"))
        until(lambda: counted.values(PUBLISHED).get(("failed",)) == 1)  # counted just after the caller is told
        assert counted.values(PUBLISHED) == {("confirmed",): 1.0, ("failed",): 1.0}
        assert counted.distributions(CONFIRM)[()].count == 2
        assert counted.values(RECONNECTS) == {(): 0.0}
        proxy.cut()
        until(lambda: counted.values(RECONNECTS)[()] >= 1, 30)
        ours.publisher.publish(message("mail"))
        until(lambda: counted.values(PUBLISHED)["confirmed",] == 2)
