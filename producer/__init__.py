"""What puts jobs in: ``Client`` and ``AsyncClient``, two thin shells over one core without I/O.

Importing this package has no effect: no thread, no connection, no Telegram library, no actors. The clients themselves
are imported when they are first asked for.
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
