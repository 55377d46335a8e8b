"""Settings of the gateway; part of :class:`floodgate.broker.settings.model.Settings` as ``FLOODGATE_GATEWAY__…``."""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

# Below this a key could be guessed.
MIN_KEY: Final = 16


class GatewaySettings(BaseModel):
    """How the gateway listens, whom it lets in, and how long it and its callers wait."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = Field("127.0.0.1", description="Address the gateway listens on. The default is this machine only.")
    port: int = Field(8080, ge=0, le=65535, description="Port the gateway listens on; 0 takes a free one.")
    keys: dict[str, list[SecretStr]] = Field(
        default_factory=dict,
        description='Gateway keys by bot, as JSON: `{"news": ["100200300:some-long-random-text"]}`. A key stands in '
        "place of the token in URLs, so that services never hold the token. Most libraries want the bot's id and a "
        "colon in front. A key of several bots chooses by `X-Floodgate-Bot`.",
    )
    accept_tokens: bool = Field(
        True, description="Whether a configured bot's own token opens the gateway too, or only its keys."
    )
    wait_seconds: float = Field(
        60,
        ge=0,
        le=3600,
        description="How long a caller waits for Telegram's result if it does not say otherwise. Beyond it the answer "
        "says that the job is safe. 0 answers 202 at once.",
    )
    longest_wait_seconds: float = Field(600, ge=0, le=3600, description="The longest wait a caller may ask for.")
    max_waiting: int = Field(
        10_000, ge=1, description="Most callers waiting at once, per gateway process. Beyond it they get 429."
    )
    max_queued: int = Field(
        200_000,
        ge=1,
        description="Most jobs waiting per bot and priority. Beyond it callers get 429 with the time to wait.",
    )
    max_body_bytes: int = Field(55 * 1024 * 1024, ge=1024, description="Largest request body, files included.")
    body_seconds: float = Field(
        30, gt=0, le=600, description="How long a caller may be silent in the middle of its request's body."
    )
    read_seconds: float = Field(
        60, gt=0, le=600, description="How long Telegram may be silent in a call that is passed through."
    )
    drain_seconds: float = Field(
        20, ge=0, le=600, description="After SIGTERM, how long waiting callers may still get their results."
    )

    @field_validator("keys")
    @classmethod
    def _long_enough(cls, value: dict[str, list[SecretStr]]) -> dict[str, list[SecretStr]]:
        for bot, keys in value.items():
            if any(len(key.get_secret_value()) < MIN_KEY or "/" in key.get_secret_value() for key in keys):
                raise ValueError(f"a key of bot {bot!r} is shorter than {MIN_KEY} characters, or holds a slash")
        return value
