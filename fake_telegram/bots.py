"""The bots: whose token is good, what a bot is called, and the little it has set about itself.

Any well-formed token is a bot's, its id the number before the colon, unless the server was given a list of tokens.
Touched by the event loop only.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from floodgate.fake_telegram.errors import not_found, unauthorized

QUERIES: Final = 100_000  # callback and inline queries of a bot's that can still be answered
_TOKEN: Final = re.compile(r"([1-9]\d{0,15}):[A-Za-z0-9_-]{30,}")


@dataclass(slots=True)
class BotState:
    """One bot's own state."""

    bot_id: int
    settings: dict[str, Any] = field(default_factory=dict)
    """What set-methods stored, by the name of what is set and its scope."""
    open_queries: OrderedDict[str, None] = field(default_factory=OrderedDict)

    @property
    def user(self) -> dict[str, Any]:
        """The bot as it stands in a message."""
        name = f"fake{self.bot_id}_bot"
        return {"id": self.bot_id, "is_bot": True, "first_name": f"Fake Bot {self.bot_id}", "username": name}

    def open_query(self, query_id: str) -> None:
        """A user waits for the answer to this query."""
        self.open_queries[query_id] = None
        if len(self.open_queries) > QUERIES:
            self.open_queries.popitem(last=False)


class Bots:
    """Bots by id, and which tokens are good."""

    def __init__(self, tokens: Iterable[str] = ()) -> None:
        self._tokens = frozenset(tokens)
        self._bots: dict[int, BotState] = {}

    def authenticate(self, token: str) -> int:
        """The bot's id.

        Raises:
            ApiError: 404 when the token is malformed, 401 when it is no bot's.
        """
        match = _TOKEN.fullmatch(token)
        if match is None:
            raise not_found()
        if self._tokens and token not in self._tokens:
            raise unauthorized()
        return int(match[1])

    def get(self, bot_id: int) -> BotState:
        bot = self._bots.get(bot_id)
        if bot is None:
            bot = self._bots[bot_id] = BotState(bot_id)
        return bot
