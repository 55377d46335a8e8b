"""The store's clock on one machine.

Windows and pauses must survive a step of the wall clock: an NTP correction must neither stop sending nor let a window
be spent twice. Linux gives all processes of a machine one monotonic clock, so that is what time is read from; it starts
anew at each boot, so the store keeps an *anchor*: the boot it belongs to, and what to add to make it Unix time. After
a reboot, or should the clock go back all the same (a container with a time namespace of its own), the store's time
goes on from the last time that was granted. It never goes back.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol


class ClockReading(NamedTuple):
    """One look at a clock: the boot it counts from, its microseconds, and Unix time in microseconds."""

    boot: str
    ticks_us: int
    unix_us: int


class Clock(Protocol):
    def read(self) -> ClockReading: ...


class Anchor(NamedTuple):
    """Store time is ``ticks_us + offset_us`` in the boot named."""

    boot: str
    offset_us: int


def store_time(reading: ClockReading, anchor: Anchor, granted_until: int) -> tuple[int, Anchor]:
    """Now, not before ``granted_until`` (the last time a send was granted), and the anchor that says so."""
    if reading.boot != anchor.boot:
        anchor = Anchor(reading.boot, reading.unix_us - reading.ticks_us)
    now = reading.ticks_us + anchor.offset_us
    if now < granted_until:
        return granted_until, Anchor(anchor.boot, granted_until - reading.ticks_us)
    return now, anchor
