"""Caches rows that this connection has read or written from one transaction to the next.

A job is used twice (admitted, settled), and so are its chat and bot, so most rows are read again shortly after they
were written. Within a transaction, ``PRAGMA data_version`` tells whether another connection has committed in the
meantime; if none has, the cached rows match the file. With one worker process that is always the case; with several it
rarely is, and rows are then read as if there were no cache.

Rows are mutable. A changed row must be saved in the same transaction; a failed transaction clears the cache.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from floodgate.broker.admission.rows import BotRow, ChatRow, JobRow

# Rows of each kind; beyond this they are cleared. A row takes about half a kilobyte.
MOST_ROWS: Final = 20_000

RowKey = tuple[str, str]  # bot, and job id or chat


class RowCache:
    """The cached rows of one connection, for use within its transactions only."""

    def __init__(self) -> None:
        self.bots: dict[str, BotRow] = {}
        self.chats: dict[RowKey, ChatRow] = {}
        self.jobs: dict[RowKey, JobRow] = {}
        self._connection: sqlite3.Connection | None = None
        self._version = -1

    def renew(self, connection: sqlite3.Connection) -> None:
        """Drop rows that others may have changed. Call this at the beginning of each transaction."""
        (version,) = connection.execute("PRAGMA data_version").fetchone()
        if version != self._version or connection is not self._connection:
            self.clear()
            self._version, self._connection = version, connection
        if len(self.jobs) > MOST_ROWS:
            self.jobs.clear()
        if len(self.chats) > MOST_ROWS:
            self.chats.clear()

    def clear(self) -> None:
        """Drop all rows."""
        self.bots.clear()
        self.chats.clear()
        self.jobs.clear()
