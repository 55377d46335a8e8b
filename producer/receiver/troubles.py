"""What goes wrong for a while is said once, then every minute, then that it is over; never once a try."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import Final

from floodgate.broker.errors import RabbitMQError
from floodgate.producer.receiver.telegram import RefusedError, TelegramError

logger = logging.getLogger("floodgate.updates")

FIRST_PAUSE_SECONDS: Final = 0.5
LONGEST_PAUSE_SECONDS: Final = 15.0
COMPLAIN_SECONDS: Final = 60.0
# A hand-over may meet the long poll that the one before left open. Telegram ends it, and neither side need hear of it.
QUIET_CONFLICT_SECONDS: Final = 10.0


class Troubles:
    """Those of one bot, and how long to wait before the next try. Belongs to the event loop."""

    def __init__(self, bot: str) -> None:
        self._bot = bot
        self._since: float | None = None
        self._said: tuple[float, str] | None = None
        self._pause_seconds = FIRST_PAUSE_SECONDS

    async def trying(self, step: Callable[[], Awaitable[None]], valid: Callable[[], bool]) -> None:
        """Make one step, however often that has to be tried, as long as ``valid``."""
        while valid():
            try:
                await step()
            except (TelegramError, RabbitMQError) as error:
                await asyncio.sleep(self.met(error))
            else:
                self.over()
                return

    def met(self, error: TelegramError | RabbitMQError) -> float:
        """One more. Returns how many seconds to wait."""
        now = time.monotonic()
        self._since = self._since or now
        if not _is_quiet(error, now - self._since):
            self._say(now, sentence(self._bot, error))
        pause, self._pause_seconds = self._pause_seconds, min(self._pause_seconds * 2, LONGEST_PAUSE_SECONDS)
        if isinstance(error, RefusedError) and error.retry_after is not None:
            return error.retry_after
        return pause * random.uniform(0.5, 1.0)

    def over(self) -> None:
        """It works."""
        if self._said is not None and self._since is not None:
            logger.info("bot %s: updates come in again after %.1f s", self._bot, time.monotonic() - self._since)
        self._since, self._said, self._pause_seconds = None, None, FIRST_PAUSE_SECONDS

    def _say(self, now: float, text: str) -> None:
        if self._said is None or self._said[1] != text or now - self._said[0] >= COMPLAIN_SECONDS:
            self._said = now, text
            logger.warning("%s", text)


def sentence(bot: str, error: Exception) -> str:
    """What is wrong and what to do."""
    if isinstance(error, RefusedError) and error.unknown_token:
        return (
            f"Bot {bot}: Telegram does not know its token ({error.code} {error.description}). Correct it in "
            "FLOODGATE_BOT_TOKEN or FLOODGATE_BOTS and start this again."
        )
    if isinstance(error, RefusedError) and error.other_poller:
        return (
            f"Bot {bot}: another program polls with its token ({error.code} {error.description}). Stop that one; "
            "Telegram serves one at a time."
        )
    return f"Bot {bot}: {error} Trying again until it works."


def _is_quiet(error: Exception, seconds: float) -> bool:
    return isinstance(error, RefusedError) and error.other_poller and seconds < QUIET_CONFLICT_SECONDS
