"""The live picture that the overview and the pages of bots show: read once for all viewers."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from starlette.requests import HTTPConnection

from floodgate.broker.admission import policy
from floodgate.broker.admission.contract import Snapshot
from floodgate.broker.amqp import queue_admin, topology
from floodgate.broker.messages import queue_names
from floodgate.broker.messages.job import Priority
from floodgate.web.blocking_calls import PartOfPage, attempt
from floodgate.web.services import Services

FRESH_SECONDS: Final = 1.0
QUEUES_FRESH_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class BotQueues:
    """The messages in a bot's queues."""

    queued: Mapping[str, int]
    """By kind: jobs by priority, ``answers``, ``updates``, ``dead``."""
    unread: Mapping[str, int]
    """By queue, for queues without a consumer."""


@dataclass(frozen=True, slots=True)
class BotPicture:
    """One bot."""

    name: str
    full_per_second: float
    """How many messages a second it may send when no 429 has slowed it; infinite without limits."""
    snapshot: PartOfPage[Snapshot]
    queues: PartOfPage[BotQueues]


class LivePicture:
    """See the module. Belongs to the event loop."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._bots: Sequence[BotPicture] = ()
        self._queues: dict[str, PartOfPage[BotQueues]] = {}
        self._read_at = self._queues_read_at = float("-inf")  # monotonic
        self._lock = asyncio.Lock()

    async def look(self) -> Sequence[BotPicture]:
        """Return the bots, at most :data:`FRESH_SECONDS` old; their queues, :data:`QUEUES_FRESH_SECONDS`."""
        async with self._lock:
            if time.monotonic() - self._read_at > FRESH_SECONDS:
                self._bots = await asyncio.gather(*map(self._read, self._services.bots))
                self._read_at = time.monotonic()
        return self._bots

    async def of_bot(self, bot: str) -> BotPicture:
        """Return one of the configured bots."""
        return next(each for each in await self.look() if each.name == bot)

    async def _read(self, bot: str) -> BotPicture:
        services = self._services
        queues = self._queues.get(bot)
        if queues is None or time.monotonic() - self._queues_read_at > QUEUES_FRESH_SECONDS:
            queues = self._queues[bot] = await attempt(services.ask_rabbitmq(queues_of, services, bot))
            self._queues_read_at = time.monotonic()
        snapshot = await attempt(services.ask_store(services.store.snapshot, bot))
        full = policy.per_second(policy.policy_of(services.settings).rates(bot).free)
        return BotPicture(bot, full, snapshot, queues)


def picture_of(connection: HTTPConnection) -> LivePicture:
    """Return the live picture of the application that answers a request."""
    picture: LivePicture = connection.app.state.picture
    return picture


def queues_of(services: Services, bot: str) -> BotQueues:
    """Count the messages ready in RabbitMQ. Blocking."""
    dead = queue_names.dead_queue(bot)
    loads = queue_admin.partition_loads(services.connections, topology.pipeline_of(services.settings, [bot]).counts)
    queued = Counter[str](dict.fromkeys((*map(str, Priority), "answers", "updates"), 0))
    for name, load in loads.items():
        queued[name.split(".")[2] if queue_names.family_of(name) == "send" else "updates"] += load.messages
    depth = queue_admin.depth(services.connections, [dead])[dead] or 0
    return BotQueues({**queued, "dead": depth}, queue_admin.unread(loads))
