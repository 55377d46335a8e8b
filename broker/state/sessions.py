"""Session data: state that handlers keep for chats, users and conversations, shared by all workers.

Each entry is a text, addressed by bot, kind (``chat_data``, …) and key. It is kept in the state store and is as durable
as that: a file, or Redis as configured.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Sessions(Protocol):
    """A store of session data. Blocking and thread-safe.

    Any method raises ``StateUnavailableError`` if the store is unavailable.
    """

    def read(self, bot: str, kind: str, key: str) -> str | None:
        """The text under a key, or None."""
        ...

    def read_all(self, bot: str, kind: str) -> dict[str, str]:
        """All texts of a kind, by key."""
        ...

    def read_some(self, bot: str, kind: str, keys: Sequence[str]) -> dict[str, str]:
        """The texts under these keys (a few hundred at most); missing keys are left out."""
        ...

    def write(self, bot: str, kind: str, key: str, text: str | None) -> None:
        """Set or replace the text under a key; None removes it."""
        ...

    def close(self) -> None:
        """Release files and sockets. Safe to call twice, and on an unused store."""
        ...
