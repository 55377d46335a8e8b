"""How many recipients of a campaign ended when, for a plot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from floodgate.producer.campaigns.states import RecipientState
from floodgate.producer.campaigns.storage import clock
from floodgate.producer.campaigns.storage.store import CampaignStore

MOST_STEPS: Final = 120
SHORTEST_STEP_MS: Final = 1000
_REFUSED: Final = (RecipientState.FAILED, RecipientState.UNREACHABLE, RecipientState.UNCERTAIN)


@dataclass(frozen=True, slots=True)
class CampaignPace:
    """Recipients that ended in each step of time, at most :data:`MOST_STEPS` of them. Times are Unix milliseconds."""

    step_ms: int
    began_ms: tuple[int, ...]
    """When each step began. Steps in which nobody ended are there, too."""
    sent: tuple[int, ...]
    refused: tuple[int, ...]


def pace_of(store: CampaignStore, name: str) -> CampaignPace:
    """Read a campaign's pace, from its start to its end or to now.

    Raises:
        CampaignError: there is no such campaign.
        StateUnavailableError: the database is unavailable.
    """
    campaign = store.get(name)
    if campaign.started_ms is None:
        return CampaignPace(SHORTEST_STEP_MS, (), (), ())
    lasted_ms = (campaign.ended_ms or clock.now_ms()) - campaign.started_ms
    step_ms = max(SHORTEST_STEP_MS, -(-lasted_ms // (MOST_STEPS - 1)))  # rounded up, and the first step may be begun
    found = store.ended_over_time(campaign, step_ms)
    first = campaign.started_ms // step_ms * step_ms
    steps = tuple(range(first, first + lasted_ms + step_ms, step_ms))[:MOST_STEPS]
    return CampaignPace(
        step_ms,
        steps,
        tuple(_number(found.get(step, {}), (RecipientState.SENT,)) for step in steps),
        tuple(_number(found.get(step, {}), _REFUSED) for step in steps),
    )


def _number(by_state: Mapping[RecipientState, int], states: tuple[RecipientState, ...]) -> int:
    return sum(by_state.get(state, 0) for state in states)
