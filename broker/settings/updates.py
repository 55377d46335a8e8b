"""Settings of updates: the ``FLOODGATE_UPDATES__…`` part of :class:`floodgate.broker.settings.model.Settings`."""

from __future__ import annotations

import difflib
from typing import Final, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

from floodgate.broker.messages.update import UPDATE_TYPES

LONGEST_POLL_SECONDS: Final = 50  # the most that Telegram allows
ALL: Final = "all"  # stands for every type of update


class UpdateSettings(BaseModel):
    """Settings for receiving updates, by polling or by webhook, and for handling them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    allowed: list[str] = Field(
        default_factory=list,
        description='Update types to request from Telegram, as JSON: `["message", "chat_member"]`, or `["all"]`. If '
        "empty, the default, Telegram sends all but `chat_member`, `message_reaction` and `message_reaction_count`.",
    )
    poll_seconds: int = Field(
        20,
        ge=1,
        le=LONGEST_POLL_SECONDS,
        description="Polling: how long Telegram waits for an update before it answers. Always limited to "
        "`FLOODGATE_HEARTBEAT_SECONDS` and half a lease: see docs/adr/0007.",
    )
    lease_seconds: float = Field(
        5,
        ge=1,
        le=60,
        description="A receiver stops polling when RabbitMQ has not confirmed it as the active one for this long, and "
        "a receiver waits this long before it takes over from one that died. It must be the same in every receiver.",
    )
    webhook_url: str | None = Field(
        None,
        description="Webhook: the public root URL at which Telegram reaches the receivers, "
        "`https://bots.example.org/tg`. The bot's name is appended.",
    )
    host: str = Field("127.0.0.1", description="Webhook: address the receiver listens on.")
    port: int = Field(8443, ge=0, le=65535, description="Webhook: port the receiver listens on; 0 picks a free one.")
    max_connections: int = Field(
        40, ge=1, le=100, description="Webhook: how many updates Telegram posts at once, to all receivers together."
    )
    max_body_bytes: int = Field(
        1024 * 1024,
        ge=1024,
        le=4 * 1024 * 1024,
        description="Webhook: largest update accepted; Telegram's have a few kB.",
    )
    attempts: int = Field(
        3,
        ge=1,
        le=20,
        description="How often a failing handler is called for one update before the update is dead-lettered.",
    )
    window: int = Field(
        32,
        ge=1,
        le=32,
        description="How many updates of one partition, from different chats, a worker handles at once; those of one "
        "chat are handled in order. With 32 partitions, the default allows 1,024. RabbitMQ can return at most 32 in "
        "order.",
    )
    handler_seconds: float = Field(
        300,
        gt=0,
        le=1500,
        description="How long handlers may take for one update. After that they are cancelled and the update is "
        "dead-lettered.",
    )
    replies: Literal["result", "enqueued"] = Field(
        "result",
        description="What a send in a handler waits for: with `result`, for Telegram's answer, and it returns the real "
        "message; with `enqueued`, for RabbitMQ's confirm, and it returns a message with id 0.",
    )
    reply_seconds: float = Field(
        60,
        gt=0,
        le=1500,
        description="How long a send in a handler waits for Telegram's result before it raises `TimedOut`. The message "
        "is still sent.",
    )
    blocked_seconds: float = Field(
        0.5,
        gt=0,
        le=60,
        description="A handler that blocks the event loop for this long is logged by name.",
    )

    @property
    def allowed_updates(self) -> list[str]:
        """The update types to request from Telegram, under their own names; empty for Telegram's default."""
        return list(UPDATE_TYPES) if ALL in self.allowed else self.allowed

    @field_validator("allowed")
    @classmethod
    def _allowed_known(cls, value: list[str]) -> list[str]:
        for place, each in enumerate(value, 1):
            if each not in (ALL, *UPDATE_TYPES):
                near = difflib.get_close_matches(each.lower(), UPDATE_TYPES, 1)
                hint = f': did you mean "{near[0]}"?' if near else "."
                every = ", ".join(f'"{known}"' for known in UPDATE_TYPES)
                raise ValueError(f'item {place} is not an update type{hint} Use "all", or some of {every}')
        return value

    @field_validator("webhook_url")
    @classmethod
    def _webhook_url_form(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("is not a URL such as https://bots.example.org/tg")
        return value.rstrip("/")
