"""Takes messages out of queues with stock pika, to see their real contents."""

from __future__ import annotations

from typing import Any

import pika

FEW = 30  # of more acks at once, some are lost when the channel is closed: see floodgate.broker.amqp.async_queue_reader


def drain(url: str, queue: str) -> list[tuple[Any, bytes]]:
    """Removes and returns all messages of a queue in order, properties and body.

    It consumes: a queue with a single active consumer refuses ``basic.get``.
    """
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.basic_qos(prefetch_count=FEW)
    taken: list[tuple[Any, bytes]] = []
    while count := channel.queue_declare(queue, passive=True).method.message_count:
        wanted = len(taken) + count
        for method, properties, body in channel.consume(queue, inactivity_timeout=5):
            assert method is not None, f"{queue} has {count} messages and gives {len(taken)}"
            taken.append((properties, body))
            channel.basic_ack(method.delivery_tag)
            if len(taken) == wanted:
                break
        channel.cancel()
    connection.close()
    return taken


def numbers(url: str, queue: str) -> list[int]:
    """The number that each message's body begins with."""
    return [int(body.split()[0]) for _, body in drain(url, queue)]


def first_seen(found: list[int]) -> list[int]:
    """Removes repetitions: after a lost connection, duplicates are allowed but disorder is not."""
    return list(dict.fromkeys(found))
