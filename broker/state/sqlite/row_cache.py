"""A cache of the rows that this connection has read or written, kept between transactions.

A job is touched twice (admitted, settled) and its chat and bot each time, so most rows are read again moments after
they were written. ``PRAGMA data_version`` tells, within a transaction, whether any other connection has committed
since; until then, the cache matches the file. With one worker process it always does; with several it rarely does, and
rows are then read as if there were no cache.

Rows are mutable. Code that changes a row saves it in the same transaction; a failed transaction empties the cache.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from floodgate.broker.admission.rows import BotRow, ChatRow, JobRow

# Of each kind; beyond this the cache is emptied. A row takes about half a kilobyte.
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
        """Discard rows that others may have changed. To be called at the beginning of a transaction."""
        (version,) = connection.execute("PRAGMA data_version").fetchone()
        if version != self._version or connection is not self._connection:
            self.clear()
            self._version, self._connection = version, connection
        if len(self.jobs) > MOST_ROWS:
            self.jobs.clear()
        if len(self.chats) > MOST_ROWS:
            self.chats.clear()

    def clear(self) -> None:
        """Discard all rows."""
        self.bots.clear()
        self.chats.clear()
        self.jobs.clear()
