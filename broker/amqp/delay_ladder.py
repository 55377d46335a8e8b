"""The delay ladder: a binary timer made of RabbitMQ queues. Pure; :mod:`floodgate.broker.amqp.topology` declares it.

A delay is counted in steps of :data:`UNIT`. Level k of the ladder is a queue whose messages all expire after
2^k steps, and a topic exchange in front of it that routes on bit k of the delay: 1 goes into the queue and
waits, 0 goes straight to the exchange of level k-1. Messages that expire in queue k are dead-lettered to that same
next exchange. After level 0 a last exchange routes by queue name. So a message with a delay of 1011₂ steps waits
8 + 2 + 1 steps in three hops::

    floodgate.delay.3 ─1─▶ [8 steps] ─▶ .2 ─0─▶ .1 ─1─▶ [2 steps] ─▶ .0 ─1─▶ [1 step] ─▶ .deliver ─▶ queue

Every message of a level waits equally long, so the head of its queue is always the next to expire: no message
waits behind a slower one, whatever the mix of delays. No message is held in a client's memory, and a restart of
the server does not extend a delay, since expiry is measured from when a message entered its level.

The routing key holds the whole route and never changes: the 28 bits, highest first, then the name of the
queue, as in ``0.0.….1.0.1.1.send.default.bulk.07``. A message enters at the level of its highest set bit,
which saves the hops above.
"""

from __future__ import annotations

import dataclasses
import math
from datetime import timedelta
from typing import Final

from floodgate.broker.messages.publication import HIGH_PRIORITY, Publication

UNIT: Final = timedelta(milliseconds=125)
LEVELS: Final = 28
MAX_STEPS: Final = 2**LEVELS - 1
MAX_DELAY: Final = MAX_STEPS * UNIT  # 388 days; a longer wait is clipped, and decided again afterwards
DELIVER_EXCHANGE: Final = "floodgate.delay.deliver"
# Messages that return from the ladder go ahead of the backlog (fresh messages have 4). All have the same priority: a
# quorum queue serves high and low priorities 2:1, and a level must stay strictly first in, first out.
RETURN_PRIORITY: Final = HIGH_PRIORITY


def steps(delay: timedelta) -> int:
    """Return a delay in units, rounded up: 0 for a delay that is over, at most :data:`MAX_STEPS`."""
    return min(max(math.ceil(delay / UNIT), 0), MAX_STEPS)


def level_name(level: int) -> str:
    """Return the name of a level's exchange and queue: ``floodgate.delay.27`` … ``floodgate.delay.00``."""
    return f"floodgate.delay.{level:02}"


def level_wait(level: int) -> timedelta:
    """Return how long a message stays in a level's queue."""
    return UNIT * (1 << level)


def next_exchange(level: int) -> str:
    """Return the exchange that follows a level, whether or not a message waits in it."""
    return level_name(level - 1) if level else DELIVER_EXCHANGE


def bit_pattern(level: int, bit: int) -> str:
    """Return the topic pattern for keys whose bit ``level`` is ``bit``, for bindings to that level's exchange."""
    return "*." * (LEVELS - 1 - level) + f"{bit}.#"


def delivery_pattern(queue: str) -> str:
    """Return the topic pattern for keys that end in exactly this queue's name.

    It has one wildcard per bit. A leading ``#`` would deliver ``a.b`` to the queue ``b`` as well.
    """
    return "*." * LEVELS + queue


def routing_key(queue: str, count: int) -> str:
    """Return the routing key of a message that is to reach ``queue`` after ``count`` steps."""
    return ".".join(f"{count:0{LEVELS}b}") + "." + queue


def entry_exchange(count: int) -> str:
    """Return the exchange at which a message of ``count`` steps enters: that of its highest set bit."""
    return level_name(count.bit_length() - 1) if count else DELIVER_EXCHANGE


def delayed(publication: Publication, delay: timedelta) -> Publication:
    """Return the same message, routed to reach its queue (``routing_key``; the exchange is ignored) after ``delay``."""
    count = steps(delay)
    return dataclasses.replace(
        publication,
        exchange=entry_exchange(count),
        routing_key=routing_key(publication.routing_key, count),
        priority=RETURN_PRIORITY,
    )
