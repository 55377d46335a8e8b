"""Handled updates as bits in Redis or Valkey: ids are consecutive, so 65,536 of them fit in a page of 8 kB.

A page expires two days after its last mark. An update's bit is addressed by its id, never by its time.
"""

from __future__ import annotations

from typing import Any, Final

from floodgate.broker.state.handled import KEEP_SECONDS, UpdateStatus
from floodgate.broker.state.redis.server import RedisConnection

PAGE_BITS: Final = 16


class RedisHandled:
    """``handled.HandledUpdates`` on a Redis or Valkey server, or a cluster. Thread-safe; connects at first use."""

    def __init__(self, url: str) -> None:
        self._server = RedisConnection(url)

    def begin(self, bot: str, update_id: int, queue: str, worker_id: str) -> UpdateStatus:
        page, bit = _place(bot, update_id)
        homes = f"floodgate:{{{bot}}}:update-homes"

        def look(client: Any) -> UpdateStatus:
            handled, home = client.pipeline(transaction=False).getbit(page, bit).hget(homes, queue).execute()
            if home != worker_id:
                client.hset(homes, queue, worker_id)
            return UpdateStatus(bool(handled), home if home != worker_id else None)

        return self._server.use(look)

    def mark(self, bot: str, update_id: int) -> None:
        page, bit = _place(bot, update_id)
        self._server.use(lambda client: client.pipeline().setbit(page, bit, 1).expire(page, KEEP_SECONDS).execute())

    def forget(self, bot: str, update_id: int) -> None:
        page, bit = _place(bot, update_id)
        # Clearing a bit of a missing page would create a page that never expires.
        self._server.use(lambda client: client.exists(page) and client.setbit(page, bit, 0))

    def close(self) -> None:
        self._server.close()


def _place(bot: str, update_id: int) -> tuple[str, int]:
    """Return the key of an update's page, and its bit there. Keys of one bot share a node of a cluster."""
    return f"floodgate:{{{bot}}}:updates:{update_id >> PAGE_BITS}", update_id & ((1 << PAGE_BITS) - 1)
