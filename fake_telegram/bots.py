"""The bots: valid tokens, names, and the settings made by bots.

Any well-formed token is valid, and the bot's id is the number before the colon, unless the server has a list of
tokens. Used by the event loop only.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from floodgate.fake_telegram.errors import not_found, unauthorized

QUERIES: Final = 100_000  # callback and inline queries of a bot that can still be answered
_TOKEN: Final = re.compile(r"([1-9]\d{0,15}):[A-Za-z0-9_-]{30,}(?:/test)?")


@dataclass(slots=True)
class BotState:
    """The state of one bot."""

    bot_id: int
    settings: dict[str, Any] = field(default_factory=dict)
    """Values stored by set-methods, by name and scope."""
    open_queries: OrderedDict[str, None] = field(default_factory=OrderedDict)

    @property
    def user(self) -> dict[str, Any]:
        """The bot's User object."""
        name = f"fake{self.bot_id}_bot"
        return {"id": self.bot_id, "is_bot": True, "first_name": f"Fake Bot {self.bot_id}", "username": name}

    def open_query(self, query_id: str) -> None:
        """Record a query that a user waits to have answered."""
        self.open_queries[query_id] = None
        if len(self.open_queries) > QUERIES:
            self.open_queries.popitem(last=False)


class Bots:
    """Bots by id, and the valid tokens."""

    def __init__(self, tokens: Iterable[str] = ()) -> None:
        self._tokens = frozenset(tokens)
        self._bots: dict[int, BotState] = {}

    def authenticate(self, token: str) -> int:
        """Return the id of a token's bot.

        Raises:
            ApiError: 404 if the token is malformed, 401 if it belongs to no bot.
        """
        match = _TOKEN.fullmatch(token)
        if match is None:
            raise not_found()
        if self._tokens and token not in self._tokens:
            raise unauthorized()
        return int(match[1])

    def get(self, bot_id: int) -> BotState:
        """Return a bot's state, creating it if needed."""
        bot = self._bots.get(bot_id)
        if bot is None:
            bot = self._bots[bot_id] = BotState(bot_id)
        return bot
