"""Publishes the updates that Telegram delivers, and waits for RabbitMQ's confirms.

Order. Updates with the same partition key are published one after the other, each after the previous one is confirmed.
Those of different chats are published together. So after any failure a chat's queue holds a prefix of what Telegram
delivered, and Telegram's next delivery continues from there. (Publishing all at once would keep the order, too, until
RabbitMQ refuses one update and accepts the next.)

A malformed update cannot be kept in order, nor recognised when it is delivered again. It goes unchanged to
``dead.malformed``, with the reason; the updates around it are published as usual.
"""

from __future__ import annotations

import json
import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from floodgate.broker.amqp import queue_admin, topology
from floodgate.broker.amqp.connections import Connections
from floodgate.broker.errors import MalformedUpdateError, UnroutableError
from floodgate.broker.messages import dead_letters
from floodgate.broker.messages.publication import Publication
from floodgate.broker.messages.update import MAX_UPDATE_BYTES, partition_key, publication, read_update
from floodgate.broker.process.metrics import UPDATES_RECEIVED, Metrics
from floodgate.broker.settings.model import Settings

logger = logging.getLogger("floodgate.updates")

SOURCE: Final = "getUpdates"  # the source of malformed updates, in place of a queue's name


@dataclass(frozen=True, slots=True)
class Sorted:
    """A delivery of updates, sorted for publishing."""

    waves: Sequence[Sequence[Publication]]
    """Each wave holds at most one update per chat, and may be published once the previous wave is confirmed."""
    malformed: Sequence[Publication]
    last_id: int | None
    """The highest ``update_id``."""


def sort_out(bot: str, given: Iterable[object], partitions: int) -> Sorted:
    """Sort a delivery of updates for publishing, keeping its order. Accepts any JSON values."""
    waves: defaultdict[int, list[Publication]] = defaultdict(list)
    seen: Counter[str] = Counter()
    malformed: list[Publication] = []
    last_id: int | None = None
    for each in given:
        try:
            update = read_update(bot, each)
            last_id = max(update.update_id, last_id or 0)
            message = publication(update, partitions)
        except MalformedUpdateError as error:
            malformed.append(_letter(bot, each, str(error)))
            continue
        key = partition_key(update.body)
        waves[seen[key]].append(message)
        seen[key] += 1
    return Sorted([waves[n] for n in range(len(waves))], malformed, last_id)


def _letter(bot: str, given: object, why: str) -> Publication:
    try:
        body = json.dumps(given, separators=(",", ":")).encode()
    except RecursionError:
        body = b'"nested too deeply to be kept"'
    if len(body) > MAX_UPDATE_BYTES:
        why, body = f"{why} Only its beginning is kept.", body[:MAX_UPDATE_BYTES]
    logger.error("moved a malformed update of bot %s to dead.malformed: %s", bot, why)
    return dead_letters.malformed("", body, SOURCE, why)


class Intake:
    """Publishes updates to RabbitMQ. Belongs to the event loop."""

    def __init__(self, settings: Settings, connections: Connections, metrics: Metrics) -> None:
        self._metrics = metrics
        self._settings = settings
        self._connections = connections

    @property
    def topology(self) -> topology.Topology:
        """The queues and exchanges that must exist on the server."""
        settings = self._settings
        return topology.pipeline(sorted(settings.tokens), 0, update_partitions=settings.update_partitions)

    async def take(self, bot: str, given: Iterable[object]) -> int | None:
        """Publish a delivery of updates. Returns the highest ``update_id``, or None if there was none.

        Raises:
            RabbitMQError: not every update was confirmed. For each chat, those confirmed are a prefix of the delivery.
        """
        found = sort_out(bot, given, self._settings.update_partitions)
        for wave in found.waves:
            await self.accept(bot, wave)
        await self.publish(found.malformed)
        return found.last_id

    async def accept(self, bot: str, updates: Sequence[Publication]) -> None:
        """Publish and count a bot's updates. Raises as :meth:`publish` does."""
        await self.publish(updates)
        self._metrics.count(UPDATES_RECEIVED, bot, by=len(updates))

    async def publish(self, publications: Sequence[Publication]) -> None:
        """Publish messages and wait until RabbitMQ has confirmed all of them.

        Raises:
            RabbitMQError: at least one was not confirmed; this is the error of the first one.
        """
        if not publications:
            return
        outcomes = await self._connections.publisher.apublish_many(publications)
        errors = [outcome for outcome in outcomes if outcome is not None]
        if any(isinstance(error, UnroutableError) for error in errors):
            await self.declare()  # someone deleted a queue; it exists again for the next attempt
        if errors:
            raise errors[0]

    async def declare(self) -> None:
        """Declare the queues and exchanges, creating those that are missing.

        Raises:
            RabbitMQError: RabbitMQ cannot be reached, or refuses.
        """
        await queue_admin.adeclare(self._connections, self.topology)
