"""Who may call: whoever shows a bot's token or one of its gateway keys, in the URL where Telegram has the token.

Secrets are looked up by digests under a key of this process's own, so the time taken tells nothing of how near a guess
was, and is the same however many bots there are.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping
from typing import Final

from pydantic import SecretStr

from floodgate.broker.settings.model import Settings
from floodgate.producer.gateway.answers import UNAUTHORIZED, RefusalError
from floodgate.producer.gateway.routes import route_of

_PLAIN_PATHS: Final = frozenset({"/health", "/ready", "/docs", "/openapi.json", "/floodgate/v1/jobs"})
_JOBS: Final = "/floodgate/v1/jobs/"
_CALL: Final = re.compile(r"/bot[^/]+/([^/]*)", re.DOTALL)
_FILE: Final = re.compile(r"/file/bot[^/]+/.*", re.DOTALL)


class Callers:
    """Knows all secrets by their digests. Immutable."""

    def __init__(self, settings: Settings) -> None:
        self._key = secrets.token_bytes(32)
        gateway = settings.gateway
        tokens = settings.tokens if gateway.accept_tokens else {}
        pairs = [(bot, token) for bot, token in tokens.items()]
        pairs += [(bot, key) for bot, keys in gateway.keys.items() for key in keys]
        bots: dict[bytes, list[str]] = {}
        for bot, secret in pairs:
            bots.setdefault(self._digest(secret), []).append(bot)
        self._bots: Mapping[bytes, tuple[str, ...]] = {digest: tuple(names) for digest, names in bots.items()}

    def bot(self, secret: str, wanted: str | None) -> str:
        """The bot that a caller with this secret calls as.

        Raises:
            RefusalError: it is nobody's secret, or not that of the bot it wants.
        """
        found = self._bots.get(self._digest(SecretStr(secret)), ())
        if not found:
            raise RefusalError(*UNAUTHORIZED)
        if wanted is None:
            return found[0]
        if wanted not in found:
            raise RefusalError(403, f"Forbidden: this key is none of the bot {wanted[:40]!r}")
        return wanted

    def _digest(self, secret: SecretStr) -> bytes:
        return hashlib.blake2b(secret.get_secret_value().encode(errors="surrogateescape"), key=self._key).digest()


def public_path(path: str) -> str:
    """A request's path as it may be logged: what is ours by name, and ``…`` for what a caller chose.

    A secret may stand anywhere in a path that is not quite right (``//bot<key>/…``, ``/bot/<key>/…``), so what may be
    shown is listed, not what may not.
    """
    if path in _PLAIN_PATHS:
        return path
    if path.startswith(_JOBS):
        return f"{_JOBS}…"
    if _FILE.fullmatch(path):
        return "/file/bot***/…"
    if call := _CALL.fullmatch(path):
        row = route_of(call[1])
        return f"/bot***/{row.method if row else '…'}"
    return "/…"
