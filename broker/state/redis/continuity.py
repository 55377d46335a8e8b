"""Whether a Redis server still has what this process has seen in it; and if not, what is to be told to it.

Each run of ``admission.lua`` names the epoch and the number of writes that the process has seen last of a bot. A run
that finds others carries nothing out, and says what it found: see :mod:`floodgate.broker.state.memory`.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

from floodgate.broker.errors import StateUnavailableError
from floodgate.broker.settings.redis_address import RedisAddress
from floodgate.broker.state.calls import AdmissionCall
from floodgate.broker.state.memory import Seen, StoreMemory

logger = logging.getLogger("floodgate.admission")

# How often a process has the server's id compared, which takes some 10 µs.
IDENTIFY_SECONDS: Final = 1.0
# How often a call is made again because the epoch has changed, before it fails.
TRIES: Final = 3


class Continuity:
    """What one process remembers of a server, or of a cluster."""

    def __init__(self, address: RedisAddress) -> None:
        self._address = address
        self._memory = StoreMemory()
        self._identified: dict[str, float] = {}  # when the server's id was last compared, by bot

    def expected(self, bot: str, seen: Seen | None) -> list[str]:
        """The arguments of a run that say what it should find. ``seen`` takes the place of what the process has seen,
        while it tells what it remembers."""
        now = time.monotonic()
        identify = now - self._identified.get(bot, -math.inf) >= IDENTIFY_SECONDS
        if identify:
            self._identified[bot] = now
        epoch, writes = seen or self._memory.seen(bot)
        return [str(epoch), str(writes), str(int(identify))]

    def found(self, bot: str, reply: Any) -> Seen | None:
        """What a run found, if that was unexpected, so that it carried nothing out; else None."""
        if isinstance(reply, Exception):
            return None
        epoch, writes, why = reply[0]
        if why is None:
            self._memory.look(bot, epoch, writes)
            return None
        if why == "behind":
            logger.error(
                "Redis at %s has lost its last writes for the bot %s: a replica that lagged was promoted, or older "
                "data restored. Sends that it has forgotten may be repeated; lines are rebuilt from what processes "
                "remember and RabbitMQ has, and budgets start as if they had just been used.",
                *(self._address, bot),
            )
        elif why == "another server":
            logger.warning(
                "Redis at %s was restarted or replaced while no process used the bot %s: its last writes may be "
                "missing",
                *(self._address, bot),
            )
        return Seen(epoch, writes)

    def tellings(self, bot: str, size: int, tries: int) -> Iterator[Sequence[AdmissionCall]]:
        """Yield the calls that tell the server what this process remembers of a bot, ``size`` at a time.

        Raises:
            StateUnavailableError: no tries are left.
        """
        if not tries:
            raise StateUnavailableError(
                f"Redis at {self._address} keeps losing its last writes. Check that only one primary answers there."
            )
        calls = self._memory.of(bot)
        logger.info("told Redis at %s %d things about the last minute of the bot %s", self._address, len(calls), bot)
        for first in range(0, len(calls), size):
            yield calls[first : first + size]

    def note(self, calls: Sequence[AdmissionCall], results: Sequence[Any]) -> None:
        """Remember calls that were carried out."""
        for call, result in zip(calls, results, strict=True):
            if not isinstance(result, Exception):
                self._memory.note(call, result)
