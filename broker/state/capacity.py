"""Warns before the state store is full, since a full store stops every bot.

A worker checks regularly, on the state thread or another that may block. A shortage is logged once when it begins and
once when it ends.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any, Final

from floodgate.broker.settings.model import Settings
from floodgate.broker.state.stores import by_url

logger = logging.getLogger("floodgate.admission")

# How often to check. A bot at 30 messages a second writes at most 100 MB in a quarter of an hour.
LOOK_SECONDS: Final = 60.0
# Less than a busy bot needs for a day; or a tenth of a small file system.
LOW_DISK_BYTES: Final = 1024**3
LOW_DISK_PART: Final = 0.1
FULL_MEMORY_PART: Final = 0.85


class CapacityWatch:
    """Checks the free space of the store in ``FLOODGATE_STATE_URL``. Belongs to one thread."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._told = False

    def look(self) -> None:
        """Log when a shortage begins and when it ends. Blocks until the store answers."""
        shortage = shortage_of(self._settings)
        if shortage is not None and not self._told:
            logger.warning("%s", shortage)
        elif shortage is None and self._told:
            logger.info("the state store has enough space again")
        self._told = shortage is not None


def shortage_of(settings: Settings) -> str | None:
    """Return a sentence with the shortage and its remedy; None if there is enough space, or it cannot be determined."""

    def redis(url: str) -> str | None:
        from floodgate.broker.state.redis.clients import address_of

        return memory_shortage(_fullest(url), str(address_of(url)))

    return by_url(settings, disk_shortage, redis)


def used_share(settings: Settings) -> float | None:
    """Return the used share of the store's space: of its file system, or of Redis's memory; None if it cannot be
    determined."""

    def disk(path: Path) -> float | None:
        try:
            usage = shutil.disk_usage(path.parent)
        except OSError:
            return None
        return 1 - usage.free / usage.total

    def redis(url: str) -> float | None:
        info = _fullest(url)
        return _memory_share(info) if info is not None else None

    return by_url(settings, disk, redis)


def _memory_bound(info: dict[str, Any]) -> int:
    return int(info.get("maxmemory") or info.get("total_system_memory") or 0)


def _memory_share(info: dict[str, Any]) -> float | None:
    bound = _memory_bound(info)
    return int(info.get("used_memory") or 0) / bound if bound else None


def _fullest(url: str) -> dict[str, Any] | None:
    """Return the ``INFO memory`` of the server, or of the fullest node of a cluster; None if it does not answer."""
    from floodgate.broker.state.redis.server import memory_of

    return max(memory_of(url), key=lambda info: _memory_share(info) or 0, default=None)


def disk_shortage(path: Path) -> str | None:
    """Return a sentence if the file system of the state file has little space left, else None."""
    try:
        usage = shutil.disk_usage(path.parent)
    except OSError:
        return None
    if usage.free >= min(LOW_DISK_BYTES, usage.total * LOW_DISK_PART):
        return None
    return (
        f"The file system of the state file {path} has {usage.free // 1024**2} MB left; when it is full, sending "
        "stops. Free some space, or lower FLOODGATE_RESULT_SECONDS and FLOODGATE_LEDGER_SECONDS."
    )


def memory_shortage(info: dict[str, Any] | None, where: str) -> str | None:
    """Return a sentence if a Redis server, judged by its ``INFO memory``, has little memory left, else None."""
    if info is None:
        return None
    most = _memory_bound(info)
    used = int(info.get("used_memory") or 0)
    if not most or used < most * FULL_MEMORY_PART:
        return None
    return (
        f"Redis at {where} uses {used // 1024**2} of {most // 1024**2} MB; when its memory is full, sending stops. "
        "Raise its maxmemory, or lower FLOODGATE_RESULT_SECONDS and FLOODGATE_LEDGER_SECONDS."
    )
