"""Rows that this connection has read or written, kept from one transaction to the next.

A job is touched twice (admitted, settled) and its chat and bot each time, so most rows are read again moments after
they were written. ``PRAGMA data_version`` tells, within a transaction, whether any other connection has committed
since; while none has, what was kept is what the file holds. With one worker process that is always so; with several it
rarely is, and then rows are read as if there were no cache.

Rows are mutable. Whoever changes one saves it in the same transaction; a transaction that fails empties the cache.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from floodgate.broker.admission.rows import BotRow, ChatRow, JobRow

# Of each kind; past it the cache starts anew. A row takes about half a kilobyte.
MOST_ROWS: Final = 20_000

RowKey = tuple[str, str]  # bot, and job id or chat


class RowCache:
    """Belongs to one connection; used within its transactions only."""

    def __init__(self) -> None:
        self.bots: dict[str, BotRow] = {}
        self.chats: dict[RowKey, ChatRow] = {}
        self.jobs: dict[RowKey, JobRow] = {}
        self._connection: sqlite3.Connection | None = None
        self._version = -1

    def renew(self, connection: sqlite3.Connection) -> None:
        """At the beginning of a transaction: forget what others may have changed."""
        (version,) = connection.execute("PRAGMA data_version").fetchone()
        if version != self._version or connection is not self._connection:
            self.clear()
            self._version, self._connection = version, connection
        if len(self.jobs) > MOST_ROWS:
            self.jobs.clear()
        if len(self.chats) > MOST_ROWS:
            self.chats.clear()

    def clear(self) -> None:
        """Forget all."""
        self.bots.clear()
        self.chats.clear()
        self.jobs.clear()
