"""Settings for the gateway, ``FLOODGATE_GATEWAY__…``: a part of :class:`floodgate.broker.settings.model.Settings`."""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

# A shorter key could be guessed.
MIN_KEY: Final = 16


class GatewaySettings(BaseModel):
    """How the gateway listens, whom it accepts, and how long it and its callers wait."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = Field(
        "127.0.0.1",
        description="Address the gateway listens on. The default accepts connections from this machine only.",
    )
    port: int = Field(8080, ge=0, le=65535, description="Port the gateway listens on; 0 takes a free one.")
    keys: dict[str, list[SecretStr]] = Field(
        default_factory=dict,
        description='Gateway keys by bot, as JSON: `{"news": ["100200300:some-long-random-text"]}`. A key replaces '
        "the token in URLs, so that services never hold the token. Most libraries require the bot's id and a colon in "
        "front. If a key belongs to several bots, `X-Floodgate-Bot` selects one.",
    )
    accept_tokens: bool = Field(
        True, description="Whether the gateway accepts a configured bot's own token in addition to its keys."
    )
    wait_seconds: float = Field(
        60,
        ge=0,
        le=3600,
        description="How long a caller waits for Telegram's result unless it asks for another time. After that the "
        "gateway answers that the job is safe. With 0 it answers 202 at once.",
    )
    longest_wait_seconds: float = Field(600, ge=0, le=3600, description="The longest wait a caller may ask for.")
    max_waiting: int = Field(
        10_000, ge=1, description="Maximum number of waiting callers per gateway process. Further callers get 429."
    )
    max_queued: int = Field(
        200_000,
        ge=1,
        description="Maximum number of waiting jobs per bot and priority. Beyond that, callers get 429 and a time to "
        "wait.",
    )
    max_body_bytes: int = Field(55 * 1024 * 1024, ge=1024, description="Largest request body, files included.")
    body_seconds: float = Field(
        30, gt=0, le=600, description="How long a caller may send nothing in the middle of a request body."
    )
    read_seconds: float = Field(
        60, gt=0, le=600, description="How long Telegram may send nothing during a call that is passed through."
    )
    drain_seconds: float = Field(
        20, ge=0, le=600, description="How long waiting callers can still get their results after SIGTERM."
    )

    @field_validator("keys")
    @classmethod
    def _long_enough(cls, value: dict[str, list[SecretStr]]) -> dict[str, list[SecretStr]]:
        for bot, keys in value.items():
            if any(len(key.get_secret_value()) < MIN_KEY or "/" in key.get_secret_value() for key in keys):
                raise ValueError(f"a key of bot {bot!r} is shorter than {MIN_KEY} characters, or holds a slash")
        return value
