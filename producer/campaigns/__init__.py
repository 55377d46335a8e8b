"""Campaigns: one message to very many chats, with a record of what became of each.

A campaign has content (a template), a frozen audience, a schedule, rules and a state. ``definition`` describes it, and
``states`` its life. The packages, each of which uses only those before it:

content     renders the message for one recipient
audience    reads the rows of an audience
storage     keeps everything in SQL
sending     the process, and the leader of each campaign
responses   what recipients do afterwards
operations  all that one can do with a campaign, for programs, the command line and the gateway
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from floodgate.broker.errors import SettingsError
from floodgate.broker.settings.model import Settings

if TYPE_CHECKING:
    from floodgate.producer.campaigns.operations.service import Campaigns


def campaigns_of(settings: Settings, bot: str) -> Campaigns:
    """Return the campaigns of a client whose bot this is.

    Raises:
        SettingsError: the extra ``campaigns`` is not installed.
    """
    try:
        from floodgate.producer.campaigns.operations.service import Campaigns
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"Campaigns need {error.name}, which is not installed: install telegram-floodgate[campaigns]."
        ) from None
    return Campaigns(settings, bot)
