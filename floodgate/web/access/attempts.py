"""Limits failed logins, per address and in all.

Tokens are long and random, so guessing one is hopeless in any case. The limits keep a guesser from filling the log and
from using the CPU. While an address has to wait, the right token is refused there, too; otherwise the limit would not
slow anybody down.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Final

WINDOW_SECONDS: Final = 60
PER_ADDRESS: Final = 5
IN_ALL: Final = 60


class LoginAttempts:
    """The failed logins of the last minute, at most :data:`IN_ALL`. Belongs to the event loop.

    Args:
        clock: a monotonic clock, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failed: deque[tuple[float, str]] = deque(maxlen=IN_ALL)

    def wait_seconds(self, address: IPv4Address | IPv6Address | None) -> float:
        """Return how long an address has to wait before its next attempt; 0 if it may try now."""
        now = self._clock()
        while self._failed and self._failed[0][0] <= now - WINDOW_SECONDS:
            self._failed.popleft()
        own = [moment for moment, source in self._failed if source == _source(address)]
        waits = [0.0]
        if len(own) >= PER_ADDRESS:
            waits.append(own[-PER_ADDRESS] + WINDOW_SECONDS - now)
        if len(self._failed) >= IN_ALL:
            waits.append(self._failed[0][0] + WINDOW_SECONDS - now)
        return max(waits)

    def failed(self, address: IPv4Address | IPv6Address | None) -> None:
        """Count a failed login."""
        self._failed.append((self._clock(), _source(address)))


def _source(address: IPv4Address | IPv6Address | None) -> str:
    """Return what counts as one address: of IPv6, a network of 64 bits, all of which one machine may use."""
    if isinstance(address, IPv6Address):
        return str(ip_network((address, 64), strict=False))
    return str(address)
