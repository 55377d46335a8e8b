"""Settings of the gateway: the ``FLOODGATE_GATEWAY__…`` part of :class:`floodgate.broker.settings.model.Settings`."""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

# A shorter key could be guessed.
MIN_KEY: Final = 16


class GatewaySettings(BaseModel):
    """The gateway's address, keys, size limits and time-outs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = Field("127.0.0.1", description="Address the gateway listens on. Defaults to this machine only.")
    port: int = Field(8080, ge=0, le=65535, description="Port the gateway listens on; 0 picks a free one.")
    keys: dict[str, list[SecretStr]] = Field(
        default_factory=dict,
        description='Gateway keys by bot, as JSON: `{"news": ["100200300:some-long-random-text"]}`. A key replaces '
        "the token in URLs, so that services never hold the token. Most libraries require it to begin with the bot's "
        "id and a colon. With a key that several bots share, the header `X-Floodgate-Bot` selects the bot.",
    )
    accept_tokens: bool = Field(
        True, description="Whether the gateway accepts a configured bot's own token as well as its keys."
    )
    wait_seconds: float = Field(
        60,
        ge=0,
        le=3600,
        description="How long a caller waits for Telegram's result unless it asks for another time. After that the "
        "gateway answers that the job is safely queued. 0 answers 202 at once.",
    )
    longest_wait_seconds: float = Field(600, ge=0, le=3600, description="The longest wait a caller may ask for.")
    max_waiting: int = Field(
        10_000, ge=1, description="Maximum number of waiting callers per gateway process. Further callers get 429."
    )
    max_queued: int = Field(
        200_000,
        ge=1,
        description="Maximum number of waiting jobs per bot and priority. Further calls get 429 with the time to wait.",
    )
    max_body_bytes: int = Field(55 * 1024 * 1024, ge=1024, description="Largest request body, files included.")
    body_seconds: float = Field(
        30, gt=0, le=600, description="How long a caller may pause while it sends its request body."
    )
    read_seconds: float = Field(
        60, gt=0, le=600, description="How long Telegram may be silent during a call that is passed through."
    )
    drain_seconds: float = Field(
        20, ge=0, le=600, description="How long after SIGTERM waiting callers may still get their results."
    )

    @field_validator("keys")
    @classmethod
    def _long_enough(cls, value: dict[str, list[SecretStr]]) -> dict[str, list[SecretStr]]:
        for bot, keys in value.items():
            if any(len(key.get_secret_value()) < MIN_KEY or "/" in key.get_secret_value() for key in keys):
                raise ValueError(f"a key of bot {bot!r} is shorter than {MIN_KEY} characters, or contains a slash")
        return value
