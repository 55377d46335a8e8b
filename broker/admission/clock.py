"""The store's clock on one machine.

Windows and pauses must survive a step of the wall clock: an NTP correction must neither stop sending nor let a window
be spent twice. So time is read from Linux's monotonic clock, which all processes of a machine share. It restarts at
each boot, so the store keeps an *anchor*: the boot it belongs to, and the offset to Unix time. After a reboot, or if
the clock does go back (in a container with its own time namespace), the store's time continues from the last granted
send. It never goes back.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol


class ClockReading(NamedTuple):
    """A reading of the clock: the boot it counts from, its microseconds, and Unix time in microseconds."""

    boot: str
    ticks_us: int
    unix_us: int


class Clock(Protocol):
    """A clock that all processes sharing a store agree on."""

    def read(self) -> ClockReading:
        """Read the clock."""
        ...


class Anchor(NamedTuple):
    """The relation of store time to the clock: during ``boot`` it is ``ticks_us + offset_us``."""

    boot: str
    offset_us: int


def store_time(reading: ClockReading, anchor: Anchor, granted_until: int) -> tuple[int, Anchor]:
    """The store's time, at least ``granted_until`` (when the last send was granted), and the matching anchor."""
    if reading.boot != anchor.boot:
        anchor = Anchor(reading.boot, reading.unix_us - reading.ticks_us)
    now = reading.ticks_us + anchor.offset_us
    if now < granted_until:
        return granted_until, Anchor(anchor.boot, granted_until - reading.ticks_us)
    return now, anchor
