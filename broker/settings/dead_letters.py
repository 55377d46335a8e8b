"""Settings of dead letters: the ``FLOODGATE_DEAD_LETTERS__…`` part of :class:`.model.Settings`."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, field_validator

from floodgate.broker.messages.dead_letters import CHAT_UNREACHABLE, REASONS
from floodgate.broker.messages.job import Priority

LONGEST_SECONDS: Final = 100 * 365 * 86_400

Seconds = Annotated[float, Field(ge=0, le=LONGEST_SECONDS)]


class DeadLetterSettings(BaseModel):
    """Which dead letters are kept, how many, and for how long."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seconds: Seconds = Field(
        30 * 86_400,
        description="How long a dead letter is kept. Workers then drop it, count it and log that. `0` keeps it until "
        "an operator replays or drops it.",
    )
    seconds_by_reason: dict[str, Seconds] = Field(
        default_factory=dict,
        description='Different times for some reasons, as JSON: `{"content": 86400, "uncertain": 0}`.',
    )
    most: int = Field(
        100_000,
        ge=1,
        description="Maximum number of dead letters kept per bot. Workers drop the oldest beyond that, whatever their "
        "reason, within about a minute.",
    )
    keep_unreachable_bulk: bool = Field(
        False,
        description="Whether a bulk job for an unreachable chat becomes a dead letter, which can be replayed. By "
        "default it is counted and listed: see `floodgate dead-letters not-kept`.",
    )
    listed: int = Field(
        200_000,
        ge=1,
        description="Maximum number of jobs without a dead letter that the state store lists per bot: the latest. A "
        "job is listed for as long as a `chat-unreachable` dead letter is kept.",
    )

    @field_validator("seconds_by_reason")
    @classmethod
    def _known_reasons(cls, value: dict[str, float]) -> dict[str, float]:
        if strangers := value.keys() - REASONS:
            raise ValueError(
                f"names an unknown reason {min(strangers)!r}: the reasons are {', '.join(sorted(REASONS))}"
            )
        return value

    def kept_for(self, reason: str) -> timedelta | None:
        """Return how long a dead letter with this reason is kept; None means until an operator acts."""
        seconds = self.seconds_by_reason.get(reason, self.seconds)
        return timedelta(seconds=seconds) if seconds else None

    @property
    def shortest(self) -> timedelta | None:
        """The shortest time that a dead letter is kept; None if no dead letter is dropped because of its age."""
        finite = [seconds for seconds in (self.seconds, *self.seconds_by_reason.values()) if seconds]
        return timedelta(seconds=min(finite)) if finite else None

    def keeps(self, reason: str, priority: Priority) -> bool:
        """Return whether a job that ends for this reason becomes a dead letter, if it is neither typing nor a draft."""
        return self.keep_unreachable_bulk or reason != CHAT_UNREACHABLE or priority is not Priority.BULK
