"""The calls of the Bot API that receiving needs, and what can come of them.

No error here holds a URL, for it holds the token: aiohttp's own are read and left behind.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any, Final

import aiohttp

from floodgate.broker.errors import FloodgateError
from floodgate.broker.settings.model import Settings

CONNECT_SECONDS: Final = 10.0
# Beyond the time that Telegram was asked to wait: its own and the network's.
ANSWER_SECONDS: Final = 15.0
MOST_UPDATES: Final = 100  # in one answer: Telegram's bound
# A hundred updates of any size that queues take are not read at once; a hundred real ones have a few hundred kB.
MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024


class ReceivingError(FloodgateError):
    """A call did not bring what was asked for. The message is a sentence without the token."""


class NoAnswerError(ReceivingError):
    """Telegram could not be reached, or what came was no answer of a Bot API."""


class ReceivingRefusedError(ReceivingError):
    """Telegram said no."""

    def __init__(self, method: str, code: int, description: str, retry_after: float | None) -> None:
        self.code = code
        self.description = description
        self.retry_after = retry_after
        super().__init__(f"Telegram refuses {method}: {code} {description}.")

    @property
    def unknown_token(self) -> bool:
        """Of these methods, 404 means the token, too: it is malformed."""
        return self.code in (401, 404)

    @property
    def webhook_is_set(self) -> bool:
        return self.code == 409 and "webhook" in self.description.lower()

    @property
    def other_poller(self) -> bool:
        return self.code == 409 and not self.webhook_is_set


class ReceivingApi:
    """Calls for all bots over one session. Belongs to the event loop; ``close`` may be called twice, and unused."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._session: aiohttp.ClientSession | None = None

    async def get_updates(
        self, bot: str, offset: int | None, wait_seconds: int, *, limit: int = MOST_UPDATES
    ) -> list[Any]:
        """What waits from ``offset`` on, which confirms all before it. Not looked at in any way.

        Cancelling it closes the connection, by which Telegram knows that nobody waits any more.

        Raises:
            TelegramError: it brought nothing.
        """
        asked: dict[str, Any] = {"timeout": wait_seconds, "limit": limit, **self._allowed()}
        if offset is not None:
            asked["offset"] = offset
        result = await self._call(bot, "getUpdates", asked, wait_seconds + ANSWER_SECONDS)
        if not isinstance(result, list):
            raise NoAnswerError("Telegram's answer to getUpdates is no list of updates.")
        return result

    async def set_webhook(self, bot: str, url: str, secret: str, max_connections: int) -> None:
        """Have updates posted to ``url``; those that wait are kept.

        Raises:
            TelegramError: it is not so.
        """
        asked = {"url": url, "secret_token": secret, "max_connections": max_connections, **self._allowed()}
        await self._call(bot, "setWebhook", asked, ANSWER_SECONDS)

    async def delete_webhook(self, bot: str) -> None:
        """Have updates wait to be polled; those that wait are kept. Does nothing when there is no webhook.

        Raises:
            TelegramError: it is not so.
        """
        await self._call(bot, "deleteWebhook", {"drop_pending_updates": False}, ANSWER_SECONDS)

    async def webhook_info(self, bot: str) -> dict[str, Any]:
        """What Telegram knows of the webhook.

        Raises:
            TelegramError: it brought nothing.
        """
        result = await self._call(bot, "getWebhookInfo", {}, ANSWER_SECONDS)
        if not isinstance(result, dict):
            raise NoAnswerError("Telegram's answer to getWebhookInfo is no object.")
        return result

    async def close(self) -> None:
        """Cut off what is under way."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _allowed(self) -> dict[str, Sequence[str]]:
        """Always said: left out, Telegram goes on with what was asked for last, perhaps by another program."""
        return {"allowed_updates": self._settings.updates.allowed}

    async def _call(self, bot: str, method: str, asked: dict[str, Any], seconds: float) -> Any:
        url = f"{self._settings.telegram_api_url}/bot{self._settings.token(bot).get_secret_value()}/{method}"
        timeout = aiohttp.ClientTimeout(total=seconds + CONNECT_SECONDS, connect=CONNECT_SECONDS)
        try:
            async with self._open().post(url, json=asked, timeout=timeout, allow_redirects=False) as answer:
                status, body = answer.status, await _whole(answer)
        except TimeoutError:
            raise NoAnswerError(f"Telegram does not answer {method} within {seconds:g} s.") from None
        except (aiohttp.ClientError, OSError) as error:
            raise NoAnswerError(f"Telegram cannot be reached for {method} ({_reason(error)}).") from None
        return _result(method, status, body)

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            proxy = self._settings.telegram_proxy
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),  # one poll a bot, and their number is set by the settings
                cookie_jar=aiohttp.DummyCookieJar(),
                proxy=proxy.get_secret_value() if proxy else None,
            )
        return self._session


async def _whole(answer: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for piece in answer.content.iter_any():
        body += piece
        if len(body) > MAX_ANSWER_BYTES:
            raise NoAnswerError(f"Telegram's answer has more than {MAX_ANSWER_BYTES} bytes.")
    return bytes(body)


def _result(method: str, status: int, body: bytes) -> Any:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        raise NoAnswerError(f"What answers {method} is no Bot API (HTTP {status}).") from None
    if not isinstance(answer, dict) or "ok" not in answer:
        raise NoAnswerError(f"What answers {method} is no Bot API (HTTP {status}).")
    if answer["ok"] is True:
        return answer.get("result")
    code = answer.get("error_code")
    parameters = answer.get("parameters")
    wait = parameters.get("retry_after") if isinstance(parameters, dict) else None
    raise ReceivingRefusedError(
        method,
        code if isinstance(code, int) else status,
        str(answer.get("description") or "")[:300],
        float(wait) if isinstance(wait, int | float) else None,
    )


def _reason(error: Exception) -> str:
    """What the system said, or its type. Not its text: that may hold the URL."""
    number = error.errno if isinstance(error, OSError) else None
    return os.strerror(number) if number and number > 0 else type(error).__name__
