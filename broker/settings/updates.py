"""Settings of updates; part of :class:`floodgate.broker.settings.model.Settings` as ``FLOODGATE_UPDATES__…``."""

from __future__ import annotations

from typing import Final, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

LONGEST_POLL_SECONDS: Final = 50  # what Telegram grants


class UpdateSettings(BaseModel):
    """How updates are received, by polling or by webhook, and how they are handled."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    allowed: list[str] = Field(
        default_factory=list,
        description='Update types to ask Telegram for, as JSON: `["message", "chat_member"]`. Empty, the default, is '
        "Telegram's own: all but `chat_member`, `message_reaction` and `message_reaction_count`.",
    )
    poll_seconds: int = Field(
        20,
        ge=1,
        le=LONGEST_POLL_SECONDS,
        description="Polling: how long Telegram waits for an update before it answers. At most "
        "`FLOODGATE_HEARTBEAT_SECONDS` and half a lease, whatever is set: see docs/adr/0007.",
    )
    lease_seconds: float = Field(
        5,
        ge=1,
        le=60,
        description="A receiver that RabbitMQ has not confirmed as the active one for so long stops polling, and one "
        "that takes over from a receiver that died waits for so long. The same in every receiver.",
    )
    webhook_url: str | None = Field(
        None,
        description="Webhook: the public root under which Telegram reaches the receivers, "
        "`https://bots.example.org/tg`. The bot's name is appended.",
    )
    host: str = Field("127.0.0.1", description="Webhook: address the receiver listens on.")
    port: int = Field(8443, ge=0, le=65535, description="Webhook: port the receiver listens on; 0 takes a free one.")
    max_connections: int = Field(
        40, ge=1, le=100, description="Webhook: how many updates Telegram posts at once, over all receivers."
    )
    max_body_bytes: int = Field(
        1024 * 1024, ge=1024, le=4 * 1024 * 1024, description="Webhook: largest update taken; Telegram's have a few kB."
    )
    attempts: int = Field(
        3,
        ge=1,
        le=20,
        description="How often a handler that fails is called for one update before it is dead-lettered.",
    )
    window: int = Field(
        32,
        ge=1,
        le=32,
        description="How many updates of one partition a worker handles at once, of different chats; those of a chat "
        "run in order. With 32 partitions, the default makes 1,024. RabbitMQ returns no more than 32 in their order.",
    )
    handler_seconds: float = Field(
        300,
        gt=0,
        le=1500,
        description="How long handlers may take for one update. Beyond it they are cancelled and the update is "
        "dead-lettered.",
    )
    replies: Literal["result", "enqueued"] = Field(
        "result",
        description="What a send in a handler waits for: `result`, Telegram's own, so that it returns the real "
        "message; `enqueued`, until RabbitMQ has it, so that it returns a message with id 0.",
    )
    reply_seconds: float = Field(
        60,
        gt=0,
        le=1500,
        description="How long a send in a handler waits for Telegram's result before it raises `TimedOut`. The message "
        "is sent all the same.",
    )
    blocked_seconds: float = Field(
        0.5,
        gt=0,
        le=60,
        description="A handler that keeps the event loop to itself for so long is reported by name.",
    )

    @field_validator("webhook_url")
    @classmethod
    def _webhook_url_form(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("is no URL such as https://bots.example.org/tg")
        return value.rstrip("/")
