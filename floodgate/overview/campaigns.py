"""Reads the campaigns, if there is a database of campaigns and its extra is installed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from floodgate.broker.settings.model import Settings
from floodgate.overview.picture import CampaignOverview

if TYPE_CHECKING:
    from floodgate.producer.campaigns.operations.service import Campaigns
    from floodgate.producer.campaigns.sending.progress import CampaignProgress

SHOWN_CAMPAIGNS: Final = 20
"""The latest are read; each costs a few statements."""


class CampaignReader:
    """Reads the latest campaigns. Creates no database, and opens none before there is one."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._campaigns: Campaigns | None = None

    def read(self) -> tuple[CampaignOverview, ...] | None:
        """Return the latest campaigns of all bots, the latest first; None if there is no database, or no extra.

        Raises:
            StateError: the database is unavailable, or was written by a newer version.
        """
        if self._campaigns is None:
            self._campaigns = _opened(self._settings)
        if self._campaigns is None:
            return None
        return tuple(map(_overview, self._campaigns.list(most=SHOWN_CAMPAIGNS)))

    def close(self) -> None:
        """Close the database. Safe to call twice."""
        if self._campaigns is not None:
            self._campaigns.close()


def _opened(settings: Settings) -> Campaigns | None:
    url = urlsplit(settings.campaigns_url.get_secret_value())
    if url.scheme == "sqlite" and not Path(url.path[1:]).expanduser().exists():
        return None
    try:
        from floodgate.producer.campaigns.operations.service import Campaigns
    except ModuleNotFoundError:
        return None
    return Campaigns(settings)


def _overview(progress: CampaignProgress) -> CampaignOverview:
    from floodgate.producer.campaigns.states import RecipientState

    campaign, counts = progress.campaign, progress.counts
    refused = (RecipientState.FAILED, RecipientState.UNREACHABLE, RecipientState.UNCERTAIN)
    return CampaignOverview(
        name=campaign.name,
        bot=campaign.bot,
        state=campaign.state,
        reason=campaign.reason,
        recipients=progress.total,
        sent=counts.get(RecipientState.SENT, 0),
        refused=sum(counts.get(state, 0) for state in refused),
        left=progress.left,
        eta=progress.eta,
    )
