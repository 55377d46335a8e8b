"""Authenticates callers by a bot's token or one of its gateway keys, in the place of the token in Telegram's URLs.

Secrets are looked up by keyed digests, with a random key per process. So the time of a lookup does not reveal how close
a guess was, and does not grow with the number of bots.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping
from typing import Final

from pydantic import SecretStr

from floodgate.broker.errors import UnknownMethodError
from floodgate.broker.messages.methods import find_method
from floodgate.broker.settings.model import TEST_SUFFIX, Settings
from floodgate.producer.gateway.answers import UNAUTHORIZED, RefusalError

_APIS: Final = ("/floodgate/v1/jobs", "/floodgate/v1/campaigns", "/floodgate/v1/unsubscribed")
_PLAIN_PATHS: Final = frozenset({"/health", "/ready", "/docs", "/openapi.json", *_APIS})
_CALL: Final = re.compile(rf"/bot[^/]+(?:{TEST_SUFFIX}(?=/))?/([^/]*)", re.DOTALL)
_FILE: Final = re.compile(r"/file/bot[^/]+/.*", re.DOTALL)


class Callers:
    """Finds bots by the digests of their secrets. Immutable."""

    def __init__(self, settings: Settings) -> None:
        self._key = secrets.token_bytes(32)
        gateway = settings.gateway
        testing = {bot for bot, token in settings.tokens.items() if token.get_secret_value().endswith(TEST_SUFFIX)}
        tokens = settings.tokens if gateway.accept_tokens else {}
        pairs = [(bot, token) for bot, token in tokens.items()]
        pairs += [(bot, key) for bot, keys in gateway.keys.items() for key in keys]
        pairs += [(bot, SecretStr(f"{key.get_secret_value()}{TEST_SUFFIX}")) for bot, key in pairs if bot in testing]
        bots: dict[bytes, list[str]] = {}
        for bot, secret in pairs:
            bots.setdefault(self._digest(secret), []).append(bot)
        self._bots: Mapping[bytes, tuple[str, ...]] = {digest: tuple(names) for digest, names in bots.items()}

    def bot(self, secret: str, wanted: str | None) -> str:
        """Find the bot that a caller may act as.

        Args:
            wanted: the bot that the caller names, for keys of several bots; None means the first one.

        Raises:
            RefusalError: the secret is unknown, or does not belong to the wanted bot.
        """
        found = self._bots.get(self._digest(SecretStr(secret)), ())
        if not found:
            raise RefusalError(*UNAUTHORIZED)
        if wanted is None:
            return found[0]
        if wanted not in found:
            raise RefusalError(403, f"Forbidden: this key does not belong to the bot {wanted[:40]!r}")
        return wanted

    def _digest(self, secret: SecretStr) -> bytes:
        return hashlib.blake2b(secret.get_secret_value().encode(errors="surrogateescape"), key=self._key).digest()


def kind_of(path: str) -> str:
    """Return the kind of a request for metrics: one of few words, whatever the path."""
    if _CALL.fullmatch(path):
        return "call"
    if _FILE.fullmatch(path):
        return "file"
    return "api" if any(path == api or path.startswith(f"{api}/") for api in _APIS) else "other"


def public_path(path: str) -> str:
    """Redact a request's path for the log: known names stay, and everything that a caller chose becomes ``…``.

    A secret may be anywhere in a malformed path (``//bot<key>/…``, ``/bot/<key>/…``), so this lists what may be shown,
    not what must be hidden.
    """
    if path in _PLAIN_PATHS:
        return path
    for api in _APIS:
        if path.startswith(f"{api}/"):
            return f"{api}/…"
    if _FILE.fullmatch(path):
        return "/file/bot***/…"
    if call := _CALL.fullmatch(path):
        return f"/bot***/{_shown(call[1])}"
    return "/…"


def _shown(name: str) -> str:
    try:
        method = find_method(name)
    except UnknownMethodError:
        return "…"
    return method.name if method.known else "…"
