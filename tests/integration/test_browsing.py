"""Browsing dead letters."""

from __future__ import annotations

from collections.abc import Callable

from floodgate.broker.amqp.async_queue_reader import browse
from floodgate.broker.amqp.connections import Connections
from floodgate.broker.messages import queue_names
from floodgate.broker.messages.publication import Publication
from tests.draining import numbers
from tests.services import Vhost

Connect = Callable[..., Connections]


def bury(connections: Connections, count: int) -> None:
    for n in range(count):
        letter = Publication(queue_names.DEAD_EXCHANGE, "dead.b", b"%d" % n, f"job-{n}", headers={"n": n})
        connections.publisher.publish(letter)


def test_browsing_repeatedly_shows_messages_in_order_and_leaves_them_in_order(
    declared: Vhost, connect: Connect
) -> None:
    connections = connect(declared.url)
    bury(connections, 7)
    for _ in range(30):  # more often than any default delivery limit
        seen = browse(connections, "dead.b", 5)
        assert [(glimpse.message_id, glimpse.headers["n"], glimpse.body) for glimpse in seen] == [
            (f"job-{n}", n, b"%d" % n) for n in range(5)
        ]
    assert len(browse(connections, "dead.b", 100)) == 7
    assert numbers(declared.url, "dead.b") == list(range(7))


def test_browsing_many_messages_leaves_them_in_order(declared: Vhost, connect: Connect) -> None:
    connections = connect(declared.url)
    bury(connections, 300)
    for _ in range(2):
        assert [int(seen.body) for seen in browse(connections, "dead.b", 250)] == list(range(250))
    assert numbers(declared.url, "dead.b") == list(range(300))


def test_an_empty_queue_shows_nothing(declared: Vhost, connect: Connect) -> None:
    assert browse(connect(declared.url), "dead.malformed", 10) == []


def test_a_missing_queue_shows_nothing(declared: Vhost, connect: Connect) -> None:
    assert browse(connect(declared.url), "dead.nobody", 10) == []
