"""Session data in Redis or Valkey."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from floodgate.broker.state.redis.server import RedisConnection


class RedisSessions:
    """``sessions.Sessions`` on Redis or Valkey: one hash per bot and kind."""

    def __init__(self, url: str) -> None:
        self._server = RedisConnection(url)

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
        self._server.close()

    def _ask(self, command: str, bot: str, kind: str, *arguments: object) -> Any:
        key = f"floodgate:{{{bot}}}:session:{kind}"
        return self._server.use(lambda client: getattr(client, command)(key, *arguments))
