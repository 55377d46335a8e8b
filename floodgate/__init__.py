"""Send Telegram messages as fast as Telegram allows, never faster, in order per chat, losing none.

    from floodgate import Client

    with Client() as client:
        client.send_message(chat_id=42, text="hi")

The errors are here at once; everything else is imported when it is first asked for, so that importing this package
costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from broker.errors import (
    AccessRefusedError,
    BlockedError,
    CallError,
    ClosedError,
    ConfirmTimeoutError,
    CutOffError,
    DeadLetteredError,
    DeclareRefusedError,
    EnqueueManyError,
    FloodgateError,
    InvalidParamsError,
    JobError,
    MalformedJobError,
    MalformedUpdateError,
    NotConnectedError,
    NotSentError,
    NotSettledError,
    PublishError,
    RabbitMQError,
    RabbitMQUnreachableError,
    RejectedError,
    SettingsError,
    SpoolError,
    StateError,
    StateSchemaError,
    StateUnavailableError,
    TopologyError,
    UnknownBotError,
    UnknownMethodError,
    UnroutableError,
    UnsupportedServerError,
    UploadMissingError,
)

if TYPE_CHECKING:
    from broker.job import Job
    from broker.settings import Settings, load_settings
    from broker.update import Update
    from floodgate.updates.function import on_update
    from floodgate.updates.persistence import SharedPersistence
    from producer.async_client import AsyncClient
    from producer.client import Client

__all__ = [
    "AccessRefusedError",
    "AsyncClient",
    "BlockedError",
    "CallError",
    "Client",
    "ClosedError",
    "ConfirmTimeoutError",
    "CutOffError",
    "DeadLetteredError",
    "DeclareRefusedError",
    "EnqueueManyError",
    "FloodgateError",
    "InvalidParamsError",
    "Job",
    "JobError",
    "MalformedJobError",
    "MalformedUpdateError",
    "NotConnectedError",
    "NotSentError",
    "NotSettledError",
    "PublishError",
    "RabbitMQError",
    "RabbitMQUnreachableError",
    "RejectedError",
    "Settings",
    "SettingsError",
    "SharedPersistence",
    "SpoolError",
    "StateError",
    "StateSchemaError",
    "StateUnavailableError",
    "TopologyError",
    "UnknownBotError",
    "UnknownMethodError",
    "UnroutableError",
    "UnsupportedServerError",
    "Update",
    "UploadMissingError",
    "load_settings",
    "on_update",
]

_LAZY: Final = {
    "AsyncClient": "producer.async_client",
    "Client": "producer.client",
    "Job": "broker.job",
    "Settings": "broker.settings",
    "SharedPersistence": "floodgate.updates.persistence",
    "Update": "broker.update",
    "load_settings": "broker.settings",
    "on_update": "floodgate.updates.function",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)
