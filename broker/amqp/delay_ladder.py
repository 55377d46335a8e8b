"""The delay ladder: RabbitMQ's own timer, in binary. Pure maths; :mod:`floodgate.broker.amqp.topology` declares it.

A delay is counted in steps of :data:`UNIT`. Level k of the ladder is a queue whose messages all expire after
2^k steps, and a topic exchange in front of it that looks at bit k of the delay: 1 goes into the queue and
waits, 0 goes straight on to the exchange of level k-1. What expires in queue k is dead-lettered to that same
next exchange. Behind level 0 a last exchange routes by queue name. So a delay of 1011₂ steps waits 8 + 2 + 1
steps in three hops::

    floodgate.delay.3 ─1─▶ [8 steps] ─▶ .2 ─0─▶ .1 ─1─▶ [2 steps] ─▶ .0 ─1─▶ [1 step] ─▶ .deliver ─▶ queue

Every message of a level waits equally long, so the head of its queue is always the next to expire: no message
waits behind a slower one, whatever the mix of delays. Nothing is held in a client's memory, and a restart of
the server loses no time, since expiry is measured from when a message entered its level.

The routing key says it all and never changes on the way: the 28 bits, highest first, then the name of the
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
MAX_DELAY: Final = MAX_STEPS * UNIT  # 388 days; a longer wait is clipped to it, and asked again when it is over
DELIVER_EXCHANGE: Final = "floodgate.delay.deliver"
# What comes back from the ladder goes ahead of the backlog (fresh messages have 4). The same for all, since a
# quorum queue serves high and low priorities 2:1, and a level must stay strictly first in, first out.
RETURN_PRIORITY: Final = HIGH_PRIORITY


def steps(delay: timedelta) -> int:
    """How many units a delay takes: rounded up, none for a delay that is over, at most :data:`MAX_STEPS`."""
    return min(max(math.ceil(delay / UNIT), 0), MAX_STEPS)


def level_name(level: int) -> str:
    """The name of a level's exchange, and of its queue: ``floodgate.delay.27`` … ``floodgate.delay.00``."""
    return f"floodgate.delay.{level:02}"


def level_wait(level: int) -> timedelta:
    """How long a message stays in a level's queue."""
    return UNIT * (1 << level)


def next_exchange(level: int) -> str:
    """Where a message goes from a level, waited or not."""
    return level_name(level - 1) if level else DELIVER_EXCHANGE


def bit_pattern(level: int, bit: int) -> str:
    """The topic pattern for keys whose bit ``level`` is ``bit``, as bound to that level's exchange."""
    return "*." * (LEVELS - 1 - level) + f"{bit}.#"


def delivery_pattern(queue: str) -> str:
    """The topic pattern for keys that end in exactly this queue's name.

    One word is left open per bit. A leading ``#`` would deliver ``a.b`` to the queue ``b`` as well.
    """
    return "*." * LEVELS + queue


def routing_key(queue: str, count: int) -> str:
    """The key of a message that shall reach ``queue`` after ``count`` steps."""
    return ".".join(f"{count:0{LEVELS}b}") + "." + queue


def entry_exchange(count: int) -> str:
    """The exchange at which a message of ``count`` steps enters: its highest set bit's."""
    return level_name(count.bit_length() - 1) if count else DELIVER_EXCHANGE


def delayed(publication: Publication, delay: timedelta) -> Publication:
    """The same message, to reach its queue (``routing_key``; the exchange is not used) when ``delay`` is
    over."""
    count = steps(delay)
    return dataclasses.replace(
        publication,
        exchange=entry_exchange(count),
        routing_key=routing_key(publication.routing_key, count),
        priority=RETURN_PRIORITY,
    )
