"""Bounds how many refreshes of streams wait for the bot at once, by how long they take. Pure.

What a refresh shows is fixed when it is enqueued. At 30 a second for 200 chats, a queue with one refresh of each chat
would make each of them seven seconds old before it is shown. So a client enqueues only as many as keep the bot busy,
about a third of a second's worth. The bot's budget decides how many that is, and the window finds it by measuring.

The size follows ``size · TARGET / measured``, as FAST TCP's does, plus a small term by the number of streams, which
makes the windows of several processes proportional to the numbers of their streams. A size below one means a pause
between refreshes.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final

TARGET_SECONDS: Final = 0.35
FIRST_SIZE: Final = 4.0
SMALLEST: Final = 0.02
# A refresh that takes longer no longer counts: it waits for its own chat, which says nothing about the bot.
LONGEST_SECONDS: Final = 3.0
# The measure is the lower quartile of this many refreshes, because the slow ones waited for their chats.
SAMPLES: Final = 8
_GAIN: Final = 0.5
_SHARE: Final = 0.01


class RefreshWindow:
    """The number of refreshes that may wait or be sent at once; a fraction below one."""

    def __init__(self) -> None:
        self.size = FIRST_SIZE
        self._latest: deque[float] = deque(maxlen=SAMPLES)

    @property
    def pause_seconds(self) -> float:
        """How long to wait after a refresh before the next one, if the size is below one."""
        return TARGET_SECONDS * (1.0 / self.size - 1.0) if self.size < 1.0 else 0.0

    def ended(self, seconds: float, streams: int) -> None:
        """Adapt to a refresh that took this long, while so many streams are open."""
        self._latest.append(max(seconds, 0.001))
        if self.size <= 1.0:  # one refresh at a time: each measures the present state
            size = self.size * math.sqrt(TARGET_SECONDS / self._latest[-1])
        else:
            size = self.size + _GAIN * max(-0.5, min(1.0, TARGET_SECONDS / self._measured_seconds() - 1))
        size += _SHARE * streams / max(1.0, self.size)
        self.size = max(SMALLEST, min(size, float(max(1, streams))))

    def _measured_seconds(self) -> float:
        """How long a refresh takes that waits for nothing but the bot."""
        return sorted(self._latest)[len(self._latest) // 4]
