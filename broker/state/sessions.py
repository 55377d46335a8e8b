"""Session data: what handlers store about chats, users and conversations, shared by all workers.

A text is stored by bot, kind (``chat_data``, …) and key, in the state store, and is only as durable as that is: a file,
or Redis as configured.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Sessions(Protocol):
    """Session data of all bots. Any method raises ``StateUnavailableError`` when the store cannot answer.

    Blocking; any thread may use it.
    """

    def read(self, bot: str, kind: str, key: str) -> str | None: ...

    def read_all(self, bot: str, kind: str) -> dict[str, str]:
        """Return all texts of a kind, by key."""
        ...

    def read_some(self, bot: str, kind: str, keys: Sequence[str]) -> dict[str, str]:
        """Return the existing texts of these keys, which must be at most a few hundred."""
        ...

    def write(self, bot: str, kind: str, key: str, text: str | None) -> None:
        """Store a text, replacing any earlier one; None removes it."""
        ...

    def close(self) -> None:
        """Safe to call twice, and unused."""
        ...
