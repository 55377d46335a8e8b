"""Words for what the picture shows, for all who show it."""

from __future__ import annotations

from typing import Final

from floodgate.broker.admission.contract import SlowedChat

_PAUSES: Final = {
    "429": "Telegram answered 429",
    "unauthorized": "Telegram refuses the token: renew it",
    "operator": "floodgate pause",
}


def why_paused(why: str) -> str:
    """Explain the reason of a pause; one that an operator wrote explains itself."""
    return _PAUSES.get(why, why)


def at_its_pace(slowed: SlowedChat) -> str:
    """Describe the learned pace of a chat."""
    return f"{slowed.family} {slowed.interval.total_seconds():.1f} s apart, because Telegram answered 429"
