"""Counts the messages in the bots' queues and on the delay ladder."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from floodgate.broker.amqp import delay_ladder, queue_admin, topology
from floodgate.broker.amqp.connections import Connections
from floodgate.broker.amqp.queue_admin import QueueLoad
from floodgate.broker.messages import queue_names
from floodgate.broker.messages.job import Priority
from floodgate.broker.settings.model import Settings
from floodgate.overview.picture import QueuedMessages

# How often missing queues are looked for. Each costs a channel and a line in RabbitMQ's log.
DISCOVERY: Final = timedelta(seconds=15)


_LEVELS: Final = frozenset(delay_ladder.level_name(level) for level in range(delay_ladder.LEVELS))


@dataclass(frozen=True, slots=True)
class MessageCounts:
    """The messages in RabbitMQ."""

    by_bot: Mapping[str, QueuedMessages]
    delayed: int
    """Jobs of all bots on the delay ladder: parked until their turn, or scheduled for later."""


class QueueCounts:
    """Counts the messages ready in the bots' queues, also in partitions beyond the settings' number, and those on the
    delay ladder.

    One question for each queue, however many messages it holds.
    """

    def __init__(self, settings: Settings, connections: Connections, bots: Sequence[str]) -> None:
        self._settings = settings
        self._connections = connections
        self._bots = bots
        self._known: list[str] = []
        self._discovered: float | None = None

    def read(self) -> MessageCounts:
        """Count them.

        Raises:
            RabbitMQError: RabbitMQ cannot be reached, or did not answer in time.
        """
        loads = self._loads()
        self._known = list(loads)
        by_bot: dict[str, dict[str, QueueLoad]] = {bot: {} for bot in self._bots}
        for name in loads.keys() - _LEVELS:
            by_bot[name.split(".")[1]][name] = loads[name]
        delayed = sum(loads[name].messages for name in loads.keys() & _LEVELS)
        return MessageCounts({bot: queued_in(bot, its) for bot, its in by_bot.items()}, delayed)

    def _loads(self) -> dict[str, QueueLoad]:
        now = time.monotonic()
        if self._discovered is not None and now - self._discovered < DISCOVERY.total_seconds():
            return queue_admin.loads(self._connections, self._known)
        counts = topology.pipeline_of(self._settings, self._bots).counts
        loads = queue_admin.partition_loads(self._connections, counts)
        others = [name for bot in self._bots for name in _others(bot)]
        loads |= queue_admin.loads(self._connections, [*others, *sorted(_LEVELS)])
        self._discovered = now
        return loads


def queued_in(bot: str, loads: Mapping[str, QueueLoad]) -> QueuedMessages:
    """Sum up the loads of a bot's queues."""
    dead, leader = (loads.get(name) for name in _others(bot))
    partitions = {name: load for name, load in loads.items() if queue_names.family_of(name)}
    queued = Counter[str](dict.fromkeys((*map(str, Priority), "answers", "updates"), 0))
    for name, load in partitions.items():
        queued[name.split(".")[2] if queue_names.family_of(name) == "send" else "updates"] += load.messages
    queued["dead"] = dead.messages if dead else 0
    return QueuedMessages(dict(queued), queue_admin.unread(partitions), leader.consumers if leader else 0)


def _others(bot: str) -> tuple[str, str]:
    return queue_names.dead_queue(bot), queue_names.leader_queue(bot)
