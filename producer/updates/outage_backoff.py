"""Retries with a growing pause, and logs an outage when it begins, every minute, and when it ends."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Final

from floodgate.broker.errors import RabbitMQError
from floodgate.broker.process.outages import Backoff, OutageLog
from floodgate.producer.updates.telegram import ReceivingError, ReceivingRefusedError

logger = logging.getLogger("floodgate.updates")

FIRST_PAUSE_SECONDS: Final = 0.5
LONGEST_PAUSE_SECONDS: Final = 15.0
# After a takeover, the previous leader's long poll may still be open. Telegram ends it, so this conflict is not logged.
QUIET_CONFLICT_SECONDS: Final = 10.0


class OutageBackoff:
    """Retries for one bot's updates, and logs the outages. Belongs to the event loop."""

    def __init__(self, bot: str) -> None:
        self._bot = bot
        self._outage = OutageLog()
        self._backoff = Backoff(FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)

    async def retry(self, step: Callable[[], Awaitable[None]], valid: Callable[[], bool]) -> None:
        """Try a step until it succeeds or is no longer ``valid``."""
        while valid():
            try:
                await step()
            except (ReceivingError, RabbitMQError) as error:
                await asyncio.sleep(self.failed(error))
            else:
                self.recovered()
                return

    def failed(self, error: ReceivingError | RabbitMQError) -> float:
        """Record a failure. Returns how many seconds to wait before the next try."""
        self._outage.begin()
        text = sentence(self._bot, error)
        if not _is_quiet(error, self._outage.lasted_seconds) and self._outage.is_due(text):
            logger.warning("%s", text)
        pause = self._backoff.next_seconds()
        if isinstance(error, ReceivingRefusedError) and error.retry_after is not None:
            return error.retry_after
        return pause * random.uniform(0.5, 1.0)

    def recovered(self) -> None:
        """Record a success."""
        self._backoff.reset()
        if (lasted_seconds := self._outage.end()) is not None:
            logger.info("bot %s: updates arrive again after %.1f s", self._bot, lasted_seconds)


def sentence(bot: str, error: Exception) -> str:
    """Describe an error: what is wrong and what to do."""
    if isinstance(error, ReceivingRefusedError) and error.unknown_token:
        return (
            f"Bot {bot}: Telegram does not know its token ({error.code} {error.description}). Correct it in "
            "FLOODGATE_BOT_TOKEN or FLOODGATE_BOTS and restart the receiver."
        )
    if isinstance(error, ReceivingRefusedError) and error.other_poller:
        return (
            f"Bot {bot}: another program polls with its token ({error.code} {error.description}). Stop that program: "
            "Telegram serves one at a time."
        )
    return f"Bot {bot}: {error} Retrying until it works."


def _is_quiet(error: Exception, seconds: float) -> bool:
    return isinstance(error, ReceivingRefusedError) and error.other_poller and seconds < QUIET_CONFLICT_SECONDS
