"""The monotonic clock of one machine, which all its processes share."""

from __future__ import annotations

import time
from pathlib import Path

from floodgate.broker.admission.clock import ClockReading


class MachineClock:
    """The machine's monotonic clock, shared by its processes."""

    def __init__(self) -> None:
        self._boot = _boot_id()

    def read(self) -> ClockReading:
        return ClockReading(self._boot, time.monotonic_ns() // 1000, time.time_ns() // 1000)


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "unknown"  # not Linux: a reboot then shows as the clock going back
