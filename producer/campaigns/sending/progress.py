"""How far a campaign is, and when it is expected to be done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from floodgate.broker.settings.model import Settings
from floodgate.producer.campaigns.sending.schedule import expected_end
from floodgate.producer.campaigns.states import CampaignState, RecipientState
from floodgate.producer.campaigns.storage.records import Campaign
from floodgate.producer.campaigns.storage.store import CampaignStore


@dataclass(frozen=True, slots=True)
class CampaignProgress:
    """A campaign and the number of its recipients by state."""

    campaign: Campaign
    counts: Mapping[RecipientState, int]
    eta: timedelta | None
    """Time until it is done at the rate that the limits grant; None if it does not run, or cannot be foreseen."""

    @property
    def total(self) -> int:
        """All recipients, without those who are held out."""
        return sum(self.counts.values()) - self.counts.get(RecipientState.HELD_OUT, 0)

    @property
    def left(self) -> int:
        """Recipients who have not ended."""
        return _left(self.counts)

    @property
    def ended(self) -> int:
        """Recipients who have ended."""
        return self.total - self.left

    def as_json(self) -> dict[str, object]:
        """Return the progress as JSON values."""
        campaign = self.campaign
        return {
            "name": campaign.name,
            "bot": campaign.bot,
            "state": campaign.state,
            "reason": campaign.reason,
            "version": campaign.version,
            "fingerprint": campaign.fingerprint,
            "recipients": self.total,
            "left": self.left,
            "eta_seconds": None if self.eta is None else round(self.eta.total_seconds()),
            "counts": {state.name.lower(): self.counts.get(state, 0) for state in RecipientState},
        }


def progress_of(store: CampaignStore, name: str, settings: Settings) -> CampaignProgress:
    """Read a campaign's progress.

    Raises:
        CampaignError: there is no such campaign.
        StateUnavailableError: the database is unavailable.
    """
    campaign, counts = store.get(name), store.counts(name)
    return CampaignProgress(campaign, counts, _eta(store, campaign, counts, settings))


def _eta(
    store: CampaignStore, campaign: Campaign, counts: Mapping[RecipientState, int], settings: Settings
) -> timedelta | None:
    """Estimate by the limits, the other campaigns of the bot and the schedule. Rests of chats are not considered."""
    rate = granted_per_second(campaign, settings)
    if campaign.state is not CampaignState.RUNNING or rate is None:
        return None
    others = sum(other.definition.weight for other in store.running(campaign.bot) if other.id != campaign.id)
    per_second = rate * campaign.definition.weight / (campaign.definition.weight + others)
    released = timedelta(seconds=counts.get(RecipientState.RELEASED, 0) / per_second)
    zones, waiting = store.zones(campaign), {0: counts.get(RecipientState.WAITING, 0)}
    schedule = campaign.definition.schedule
    if schedule.is_local:
        waiting = dict(store.waiting_by_zone(campaign))
    end = expected_end(schedule, zones, waiting, campaign.started, datetime.now(UTC), per_second)
    return None if end is None else end + released


def _left(counts: Mapping[RecipientState, int]) -> int:
    return counts.get(RecipientState.WAITING, 0) + counts.get(RecipientState.RELEASED, 0)


def granted_per_second(campaign: Campaign, settings: Settings) -> float | None:
    """Return the messages a second that a campaign may send if nothing else does; None if there are no limits."""
    limits = settings.limits.for_bot(campaign.bot)
    if not limits.enabled:
        return None
    paid = all(content.params.get("allow_paid_broadcast") is True for content in campaign.definition.contents)
    rate = limits.paid_per_second if paid else limits.bot_per_second
    return rate * campaign.definition.schedule.share_of_rate
