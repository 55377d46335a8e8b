"""Finds who holds a token.

Tokens are looked up by keyed digests, with a random key per process. So the time of a lookup does not reveal how close
a guess was, and does not grow with the number of tokens.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping

from floodgate.broker.settings.web import WebToken
from floodgate.web.access.viewers import Person


class Tokens:
    """People by the digests of their tokens. Immutable."""

    def __init__(self, tokens: Mapping[str, WebToken]) -> None:
        self._key = secrets.token_bytes(32)
        self._people = {
            self._digest(held.token.get_secret_value()): Person(name, held.role) for name, held in tokens.items()
        }

    def holder(self, token: str) -> Person | None:
        """Return who holds a token; None if nobody does."""
        return self._people.get(self._digest(token))

    def _digest(self, token: str) -> bytes:
        return hashlib.blake2b(token.encode(errors="surrogatepass"), key=self._key).digest()
