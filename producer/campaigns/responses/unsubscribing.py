"""Unsubscribes the chat in which an unsubscribe button was pressed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from floodgate.producer.campaigns.content.recipient_codes import NOBODY, RecipientCode
from floodgate.producer.campaigns.responses.responses import ResponseKind
from floodgate.producer.campaigns.responses.store import ResponseStore
from floodgate.producer.campaigns.storage.database import Database
from floodgate.producer.campaigns.storage.store import CampaignStore

logger = logging.getLogger("floodgate.campaigns")

OF_A_TEST: Final = "This is a test message: nobody is unsubscribed."


class Unsubscriptions:
    """Records presses of unsubscribe buttons. Thread-safe, as the database is."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._store = CampaignStore(database)
        self._responses = ResponseStore(database)

    def close(self) -> None:
        """Close the database. Safe to call twice."""
        self._database.close()

    def by_button(self, bot: str, code: RecipientCode, chats: Sequence[str], at_ms: int) -> str | None:
        """Leave a chat out of all campaigns of a bot. ``chats`` are the keys of the pressed button's chat: its id, and
        its @name if it has one. Return the text to show; None if the code is not that chat's.

        Raises:
            StateUnavailableError: the database is unavailable. The press may be recorded again.
        """
        if code == NOBODY:
            return OF_A_TEST
        found = self._store.recipient(code.campaign, code.number)
        if found is None or found[0].bot != bot:
            logger.warning(
                "bot %s: an unsubscribe button names recipient %d of campaign %d, which is not in the campaigns' "
                "database: do all processes have the same FLOODGATE_CAMPAIGNS_URL?",
                bot,
                code.number,
                code.campaign,
            )
            return None
        campaign, recipient = found
        if recipient.chat not in chats:
            logger.info("an unsubscribe button of campaign %s was forged, and is ignored", campaign.name)
            return None
        self._responses.add(code, ResponseKind.UNSUBSCRIBE, at_ms)
        self._store.unsubscribe(bot, chats[0], recipient.chat)
        return campaign.definition.contents[recipient.variant].unsubscribe_answer
