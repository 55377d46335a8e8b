"""Bounds how many refreshes of streams wait for the bot at once, by how long they take. Pure.

What a refresh shows is fixed when it is enqueued. At 30 a second for 200 chats, a queue with one refresh of each chat
would make each of them seven seconds old before it is shown. So a client enqueues only as many as keep the bot busy:
so many that a refresh takes :data:`WANTED_SECONDS`. The bot's budget decides how many that is, and the window finds it
by measuring.

It does so as TCP does: while refreshes take less, the size grows by a share for each open stream, and else it shrinks
by a fraction. So the windows of several processes become proportional to the numbers of their streams. All processes
want the same time; if each wanted a little more than the shortest that it has measured, one that has never seen an
empty queue would crowd out the others.
"""

from __future__ import annotations

from collections import deque
from typing import Final

WANTED_SECONDS: Final = 0.5
# The size at first, and the smallest: where calls alone take longer than that, these may still be made.
SMALLEST: Final = 4.0
# A refresh that takes longer no longer counts: it waits for its own chat, which says nothing about the bot.
LONGEST_SECONDS: Final = 3.0
# The measure is the lower quartile of this many refreshes, because the slow ones waited for their chats.
SAMPLES: Final = 8
# In the time that a refresh takes, the size grows by this for each stream, or shrinks by this fraction.
_GROWTH: Final = 0.015
_SHRINKAGE: Final = 0.25
# For each refresh at first, until one waits.
_FIRST_GROWTH: Final = 0.5


class RefreshWindow:
    """The number of refreshes that may wait or be sent at once."""

    def __init__(self) -> None:
        self.size = SMALLEST
        self._begins = True
        self._latest: deque[float] = deque(maxlen=SAMPLES)

    def ended(self, seconds: float, streams: int) -> None:
        """Adapt to a refresh that took this long, while so many streams are open."""
        self._latest.append(seconds)
        waits = sorted(self._latest)[len(self._latest) // 4] > WANTED_SECONDS
        self._begins = self._begins and not waits
        if waits:
            self.size -= _SHRINKAGE
        else:
            self.size += _FIRST_GROWTH if self._begins else _GROWTH * streams / self.size
        self.size = max(SMALLEST, min(self.size, float(streams)))
