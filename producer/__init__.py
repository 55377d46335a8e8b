"""The clients that enqueue jobs: ``Client`` and ``AsyncClient``, two thin shells over one core without I/O.

Importing this package has no side effects: it starts no thread, opens no connection, and imports neither a Telegram
library nor the actors. The clients themselves are imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from floodgate.producer.async_client import AsyncClient
    from floodgate.producer.client import Client

__all__ = ["AsyncClient", "Client"]


def __getattr__(name: str) -> Any:
    match name:
        case "AsyncClient":
            from floodgate.producer.async_client import AsyncClient

            return AsyncClient
        case "Client":
            from floodgate.producer.client import Client

            return Client
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
