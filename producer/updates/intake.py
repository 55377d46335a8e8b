"""From what Telegram gave to what RabbitMQ has confirmed.

Order. Updates that share a partition key are published one after the other: the next when the one before is confirmed.
Those of different chats go together. So whatever fails, what is in the queues of a chat is a beginning of what Telegram
gave, and what comes again after a failure goes on from there. (Publishing all at once would be in order, too, until one
is refused and the one behind it is not.)

What is no update cannot be kept in order, nor told from what comes twice. It goes to ``dead.malformed`` as it came,
with the reason, and what is around it goes on.
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
from floodgate.broker.settings.model import Settings

logger = logging.getLogger("floodgate.updates")

SOURCE: Final = "getUpdates"  # where malformed ones came from, in place of a queue


@dataclass(frozen=True, slots=True)
class Sorted:
    """What Telegram gave, by what becomes of it."""

    waves: Sequence[Sequence[Publication]]
    """Each wave holds one update of a chat at most; a wave may go when the one before is safe."""
    malformed: Sequence[Publication]
    last_id: int | None
    """The highest ``update_id``."""


def sort_out(bot: str, given: Iterable[object], partitions: int) -> Sorted:
    """What becomes of each thing that Telegram gave, in its order. Total over JSON values."""
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
    logger.error("Telegram gave bot %s what is no update, moved to dead.malformed: %s", bot, why)
    return dead_letters.malformed("", body, SOURCE, why)


class Intake:
    """Puts updates into RabbitMQ. Belongs to the event loop."""

    def __init__(self, settings: Settings, connections: Connections) -> None:
        self._settings = settings
        self._connections = connections

    @property
    def topology(self) -> topology.Topology:
        """What must exist on the server."""
        settings = self._settings
        return topology.pipeline(sorted(settings.tokens), 0, update_partitions=settings.update_partitions)

    async def take(self, bot: str, given: Iterable[object]) -> int | None:
        """Have RabbitMQ keep what Telegram gave. Returns the highest ``update_id``, None if there was none.

        Raises:
            RabbitMQError: not all of it is safe. What is, is a beginning of every chat's.
        """
        found = sort_out(bot, given, self._settings.update_partitions)
        for wave in found.waves:
            await self.publish(wave)
        await self.publish(found.malformed)
        return found.last_id

    async def publish(self, publications: Sequence[Publication]) -> None:
        """Have RabbitMQ confirm them all.

        Raises:
            RabbitMQError: one or more are not known to be safe; the reason of the first.
        """
        if not publications:
            return
        outcomes = await self._connections.publisher.apublish_many(publications)
        errors = [outcome for outcome in outcomes if outcome is not None]
        if any(isinstance(error, UnroutableError) for error in errors):
            await self.declare()  # someone deleted a queue; the next attempt finds it
        if errors:
            raise errors[0]

    async def declare(self) -> None:
        """Make the queues that are missing.

        Raises:
            RabbitMQError: it cannot be done.
        """
        await queue_admin.adeclare(self._connections, self.topology)
