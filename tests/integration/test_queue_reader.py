"""Reading queues: removed messages are gone, the others keep their place."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from floodgate.broker.amqp.connections import Connections
from floodgate.broker.amqp.queue_reader import QueueReader
from floodgate.broker.errors import RabbitMQUnreachableError
from floodgate.broker.messages import queue_names
from floodgate.broker.messages.publication import Publication
from rabbitmq_node.node import Node
from tests.draining import numbers
from tests.proxy import Proxy
from tests.services import Vhost

Connect = Callable[..., Connections]
QUEUE = "dead.b"


@pytest.fixture
def connections(declared: Vhost, connect: Connect) -> Connections:
    made = connect(declared.url)
    for n in range(10):
        made.publisher.publish(Publication(queue_names.DEAD_EXCHANGE, QUEUE, b"%d" % n, f"job-{n}"))
    return made


def test_messages_are_taken_in_order_until_the_end_of_the_queue(connections: Connections) -> None:
    with QueueReader(connections, QUEUE) as reader:
        assert [one.body for one in reader.take(4)] == [b"0", b"1", b"2", b"3"]
        assert [len(page) for page in reader.pages(4, most=100)] == [4, 2]
        assert reader.take(1) == []


def test_removed_messages_are_gone_and_the_rest_keep_their_order(connections: Connections, declared: Vhost) -> None:
    with QueueReader(connections, QUEUE) as reader:
        taken = reader.take(8)
        reader.remove([taken[1], taken[6]])
        reader.remove([])
    assert numbers(declared.url, QUEUE) == [0, 2, 3, 4, 5, 7, 8, 9]


def test_many_remaining_messages_keep_their_order(connections: Connections, declared: Vhost) -> None:
    for n in range(10, 300):
        connections.publisher.publish(Publication(queue_names.DEAD_EXCHANGE, QUEUE, b"%d" % n, f"job-{n}"))
    with QueueReader(connections, QUEUE) as reader:
        for page in reader.pages(20, most=250):
            reader.remove(page[3:5])
    gone = {start + n for start in range(0, 250, 20) for n in (3, 4)}
    assert numbers(declared.url, QUEUE) == [n for n in range(300) if n not in gone]


@contextlib.contextmanager
def stalled_disk(node: Node) -> Iterator[None]:
    """Quorum queues' write-ahead log is suspended: commands are accepted but not carried out."""
    node.ctl("eval", "sys:suspend(ra_log_wal).")
    try:
        yield
    finally:
        node.ctl("eval", "sys:resume(ra_log_wal).")


@pytest.mark.parametrize("step", [1, 2], ids=["all", "every other one"])
def test_a_removal_from_a_slow_queue_is_not_lost_when_the_channel_closes(
    step: int, connections: Connections, declared: Vhost
) -> None:
    """RabbitMQ drops acks of a closed channel that a queue has not yet accepted: all after 33."""
    for n in range(10, 100):
        connections.publisher.publish(Publication(queue_names.DEAD_EXCHANGE, QUEUE, b"%d" % n, f"job-{n}"))
    reader = QueueReader(connections, QUEUE)
    taken = reader.take(90)

    def remove_and_leave() -> None:
        reader.remove(taken[::step])
        reader.close()

    with ThreadPoolExecutor(1) as visitor:
        with stalled_disk(declared.node):
            left = visitor.submit(remove_and_leave)
            with pytest.raises(TimeoutError):
                left.result(0.3)
        left.result(15)
    assert sorted(numbers(declared.url, QUEUE)) == sorted({*range(100)} - {*range(0, 90, step)})


def test_messages_read_to_confirm_a_removal_are_taken_next(connections: Connections, declared: Vhost) -> None:
    with QueueReader(connections, QUEUE) as reader:
        reader.remove(reader.take(2))
        reader.remove(reader.take(1))
        assert [one.body for one in reader.take(3)] == [b"3", b"4", b"5"]
        reader.remove([])
    assert numbers(declared.url, QUEUE) == list(range(3, 10))


def test_messages_held_by_one_reader_are_hidden_from_others(connections: Connections) -> None:
    with QueueReader(connections, QUEUE) as first, QueueReader(connections, QUEUE) as second:
        first.take(6)
        assert [one.message_id for one in second.take(100)] == ["job-6", "job-7", "job-8", "job-9"]


def test_an_exception_in_the_caller_returns_all_messages(connections: Connections, declared: Vhost) -> None:
    with pytest.raises(ZeroDivisionError), QueueReader(connections, QUEUE) as reader:
        reader.take(5)
        raise ZeroDivisionError
    assert numbers(declared.url, QUEUE) == list(range(10))


def test_reading_a_missing_queue_gives_nothing(connections: Connections) -> None:
    with QueueReader(connections, "dead.nobody") as reader:
        assert reader.take(10) == []


def test_a_reader_can_be_closed_twice_and_raises_when_used_afterwards(connections: Connections) -> None:
    reader = QueueReader(connections, QUEUE)
    reader.close()
    reader.close()
    with pytest.raises(RabbitMQUnreachableError, match="open another"):
        reader.take(1)


def test_a_lost_connection_raises_and_leaves_the_messages_that_were_not_removed(
    connections: Connections, declared: Vhost, connect: Connect
) -> None:
    with Proxy(declared.node.port) as proxy:
        away = connect(proxy.url(declared.url))
        reader = QueueReader(away, QUEUE)
        reader.remove(reader.take(3)[:1])
        assert [one.message_id for one in reader.take(1)] == ["job-3"]  # so that the removal has been carried out
        proxy.cut()
        with pytest.raises(RabbitMQUnreachableError):
            reader.take(1)
        with pytest.raises(RabbitMQUnreachableError):
            reader.close()
        reader.close()
    assert numbers(declared.url, QUEUE) == list(range(1, 10))
