"""Publishes many messages through a publisher with its window full."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from itertools import islice

from floodgate.broker.amqp.publisher import Publication, Publisher, PublishOutcome, PublishOutcomes
from floodgate.broker.errors import RabbitMQError

BATCH = 25


def publish_all(
    publisher: Publisher, publications: Iterable[Publication]
) -> Iterator[tuple[Publication, PublishOutcome]]:
    """Publishes the messages. Yields each with its result, in order. The window bounds those in flight."""
    source = iter(publications)
    under_way: deque[tuple[list[Publication], Future[PublishOutcomes]]] = deque()
    while batch := list(islice(source, BATCH)):
        under_way.append((batch, _submit(publisher, batch)))
        while under_way and under_way[0][1].done():
            yield from _outcomes(*under_way.popleft())
    while under_way:
        yield from _outcomes(*under_way.popleft())


def _submit(publisher: Publisher, batch: list[Publication]) -> Future[PublishOutcomes]:
    try:
        return publisher.submit_many(batch)
    except RabbitMQError as error:
        failed: Future[PublishOutcomes] = Future()
        failed.set_result((error,) * len(batch))
        return failed


def _outcomes(
    batch: list[Publication], future: Future[PublishOutcomes]
) -> Iterator[tuple[Publication, PublishOutcome]]:
    return zip(batch, future.result(), strict=True)
