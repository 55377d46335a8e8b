"""Campaigns: one message to very many chats, with a record of what became of each.

A campaign has content (a template), a frozen audience, a schedule, rules and a state. The files, in the order in which
a campaign meets them: ``definition`` (from TOML), ``audience`` (from CSV, JSON Lines or an iterable), ``templates``
(renders the content for one recipient), ``checks`` (renders it for all, before the start), ``store`` (keeps everything
in SQL), ``samples`` (one message, to look at), ``schedule`` and ``rules`` (when to send, when to stop), ``leader``
(sends one campaign), ``process`` (runs the leaders), ``edits`` (changes what is left), ``retries``, ``corrections``
(edits and deletes what was sent). ``service`` has the operations that programs, the command line and the gateway use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from floodgate.broker.errors import SettingsError
from floodgate.broker.settings.model import Settings

if TYPE_CHECKING:
    from floodgate.producer.campaigns.service import Campaigns


def campaigns_of(settings: Settings, bot: str) -> Campaigns:
    """Return the campaigns of a client whose bot this is.

    Raises:
        SettingsError: the extra ``campaigns`` is not installed.
    """
    try:
        from floodgate.producer.campaigns.service import Campaigns
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"Campaigns need {error.name}, which is not installed: install telegram-floodgate[campaigns]."
        ) from None
    return Campaigns(settings, bot)
