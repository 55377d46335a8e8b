"""Session data in the state file."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from floodgate.broker.state.sqlite.file import StateFile, write

_TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS sessions (bot TEXT, kind TEXT, key TEXT, text TEXT, PRIMARY KEY (bot, kind, key)) "
    "WITHOUT ROWID",
)


class SqliteSessions:
    """``sessions.Sessions`` on a SQLite file."""

    def __init__(self, path: Path) -> None:
        self._file = StateFile(path, _TABLES)

    def read(self, bot: str, kind: str, key: str) -> str | None:
        def look(db: sqlite3.Connection) -> str | None:
            where = "SELECT text FROM sessions WHERE bot = ? AND kind = ? AND key = ?"
            (text,) = db.execute(where, (bot, kind, key)).fetchone() or (None,)
            return text

        return self._file.use(look)

    def read_all(self, bot: str, kind: str) -> dict[str, str]:
        where = "SELECT key, text FROM sessions WHERE bot = ? AND kind = ?"
        return self._file.use(lambda db: dict(db.execute(where, (bot, kind)).fetchall()))

    def read_some(self, bot: str, kind: str, keys: Sequence[str]) -> dict[str, str]:
        each = ", ".join("?" * len(keys))
        where = f"SELECT key, text FROM sessions WHERE bot = ? AND kind = ? AND key IN ({each})"
        return self._file.use(lambda db: dict(db.execute(where, (bot, kind, *keys)).fetchall()))

    def write(self, bot: str, kind: str, key: str, text: str | None) -> None:
        if text is None:
            gone = "DELETE FROM sessions WHERE bot = ? AND kind = ? AND key = ?"
            self._file.use(lambda db: write(db, gone, (bot, kind, key)))
        else:
            put = "INSERT OR REPLACE INTO sessions VALUES (?, ?, ?, ?)"
            self._file.use(lambda db: write(db, put, (bot, kind, key, text)))

    def close(self) -> None:
        self._file.close()
