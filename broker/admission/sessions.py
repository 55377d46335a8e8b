"""Session data: what handlers remember of chats, users and conversations, shared by all workers.

A text by namespace (a bot), kind (``chat_data``, …) and key. It is one more use of the state store, and no more durable
than that is: a file, or Redis as it is configured.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from floodgate.broker.admission.sqlite_file import StateFile, write

_TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS sessions (bot TEXT, kind TEXT, key TEXT, text TEXT, PRIMARY KEY (bot, kind, key)) "
    "WITHOUT ROWID",
)


class Sessions(Protocol):
    """Any method raises ``StateUnavailableError`` when the store cannot answer. Blocking; any thread may use it."""

    def read(self, bot: str, kind: str, key: str) -> str | None: ...

    def read_all(self, bot: str, kind: str) -> dict[str, str]:
        """All of a kind, by key."""
        ...

    def read_some(self, bot: str, kind: str, keys: Sequence[str]) -> dict[str, str]:
        """Of these keys, at most a few hundred, those that there are."""
        ...

    def write(self, bot: str, kind: str, key: str, text: str | None) -> None:
        """Keep a text in place of the one that is there; None removes it."""
        ...

    def close(self) -> None:
        """Safe to call twice, and unused."""
        ...


class SqliteSessions:
    """Sessions in the state file."""

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


class RedisSessions:
    """Sessions as one hash a bot and kind."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._lock = threading.Lock()
        self._client: Any = None  # made under _lock

    def read(self, bot: str, kind: str, key: str) -> str | None:
        text: str | None = self._ask("hget", bot, kind, key)
        return text

    def read_all(self, bot: str, kind: str) -> dict[str, str]:
        texts: dict[str, str] = self._ask("hgetall", bot, kind)
        return texts

    def read_some(self, bot: str, kind: str, keys: Sequence[str]) -> dict[str, str]:
        texts: list[str | None] = self._ask("hmget", bot, kind, keys) if keys else []
        return {key: text for key, text in zip(keys, texts, strict=True) if text is not None}

    def write(self, bot: str, kind: str, key: str, text: str | None) -> None:
        if text is None:
            self._ask("hdel", bot, kind, key)
        else:
            self._ask("hset", bot, kind, key, text)

    def close(self) -> None:
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _ask(self, command: str, bot: str, kind: str, *arguments: object) -> Any:
        import redis

        from floodgate.broker.admission.redis import connect_to, fault, where

        try:
            with self._lock:
                client = self._client = self._client or connect_to(self._url)
            return getattr(client, command)(f"floodgate:{{{bot}}}:session:{kind}", *arguments)
        except redis.exceptions.RedisError as error:
            raise fault(error, where(self._url)) from error
