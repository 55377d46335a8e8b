"""Session data: what handlers remember of chats, users and conversations, shared by all workers.

A text by namespace (a bot), kind (``chat_data``, …) and key. It is one more use of the state store, and no more durable
than that is: a file, or Redis as it is configured.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


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
