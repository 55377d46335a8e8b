"""Send Telegram messages as fast as Telegram allows, never faster, in order per chat, losing none.

    from floodgate import Client

    with Client() as client:
        client.send_message(chat_id=42, text="hi")

Importing this package imports only the errors; everything else is imported on first access, which keeps the import
cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from floodgate.broker.errors import (
    AccessRefusedError,
    BlockedError,
    CallError,
    CampaignError,
    ClosedError,
    ConfirmTimeoutError,
    CutOffError,
    DeadLetteredError,
    DeclareRefusedError,
    DedupeKeyError,
    EnqueueManyError,
    FloodgateError,
    HandlersStoppedError,
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
    from floodgate.broker.messages.job import Job
    from floodgate.broker.messages.update import Update
    from floodgate.broker.settings.model import Settings, load_settings
    from floodgate.producer.async_client import AsyncClient
    from floodgate.producer.campaigns.operations.async_service import AsyncCampaigns
    from floodgate.producer.campaigns.operations.service import Campaigns
    from floodgate.producer.campaigns.sending.progress import CampaignProgress
    from floodgate.producer.campaigns.states import CampaignState, RecipientState
    from floodgate.producer.client import Client
    from floodgate.producer.streaming.message import AsyncMessageStream, MessageStream
    from floodgate.updates.function import on_update
    from floodgate.updates.persistence import SharedPersistence
    from floodgate.updates.streams import stream_reply

    __version__: str

__all__ = [
    "AccessRefusedError",
    "AsyncCampaigns",
    "AsyncClient",
    "AsyncMessageStream",
    "BlockedError",
    "CallError",
    "CampaignError",
    "CampaignProgress",
    "CampaignState",
    "Campaigns",
    "Client",
    "ClosedError",
    "ConfirmTimeoutError",
    "CutOffError",
    "DeadLetteredError",
    "DeclareRefusedError",
    "DedupeKeyError",
    "EnqueueManyError",
    "FloodgateError",
    "HandlersStoppedError",
    "InvalidParamsError",
    "Job",
    "JobError",
    "MalformedJobError",
    "MalformedUpdateError",
    "MessageStream",
    "NotConnectedError",
    "NotSentError",
    "NotSettledError",
    "PublishError",
    "RabbitMQError",
    "RabbitMQUnreachableError",
    "RecipientState",
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
    "stream_reply",
]

_LAZY: Final = {
    "AsyncCampaigns": "floodgate.producer.campaigns.operations.async_service",
    "AsyncClient": "floodgate.producer.async_client",
    "AsyncMessageStream": "floodgate.producer.streaming.message",
    "CampaignProgress": "floodgate.producer.campaigns.sending.progress",
    "CampaignState": "floodgate.producer.campaigns.states",
    "Campaigns": "floodgate.producer.campaigns.operations.service",
    "Client": "floodgate.producer.client",
    "Job": "floodgate.broker.messages.job",
    "MessageStream": "floodgate.producer.streaming.message",
    "RecipientState": "floodgate.producer.campaigns.states",
    "Settings": "floodgate.broker.settings.model",
    "SharedPersistence": "floodgate.updates.persistence",
    "Update": "floodgate.broker.messages.update",
    "load_settings": "floodgate.broker.settings.model",
    "on_update": "floodgate.updates.function",
    "stream_reply": "floodgate.updates.streams",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("telegram-floodgate")
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted((*__all__, "__version__"))
