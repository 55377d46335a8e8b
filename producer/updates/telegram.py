"""The Bot API calls that a receiver makes, and their errors.

No error here holds a URL, because URLs hold the token. aiohttp's own errors are read and dropped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any, Final

import aiohttp

from floodgate.broker.errors import FloodgateError
from floodgate.broker.process.telegram_session import TelegramSession
from floodgate.broker.settings.model import Settings

CONNECT_SECONDS: Final = 10.0
# In addition to the time that Telegram was asked to wait: for Telegram and the network.
ANSWER_SECONDS: Final = 15.0
MOST_UPDATES: Final = 100  # in one answer: Telegram's bound
# A hundred real updates have a few hundred kB.
MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024


class ReceivingError(FloodgateError):
    """A call failed. The message is a sentence without the token."""


class NoAnswerError(ReceivingError):
    """Telegram could not be reached, or the answer was not a Bot API's."""


class ReceivingRefusedError(ReceivingError):
    """Telegram refused the call."""

    def __init__(self, method: str, code: int, description: str, retry_after: float | None) -> None:
        self.code = code
        self.description = description
        self.retry_after = retry_after
        super().__init__(f"Telegram refuses {method}: {code} {description}.")

    @property
    def unknown_token(self) -> bool:
        """Whether the token is wrong. For these methods 404 says so too: the token is malformed."""
        return self.code in (401, 404)

    @property
    def webhook_is_set(self) -> bool:
        return self.code == 409 and "webhook" in self.description.lower()

    @property
    def other_poller(self) -> bool:
        return self.code == 409 and not self.webhook_is_set


class ReceivingApi:
    """Calls for all bots over one session. Belongs to the event loop; ``close`` is safe to call twice, and unused."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        # Without a limit: one poll a bot, and the settings name the bots.
        self._session = TelegramSession(0, settings.telegram_proxy)

    async def get_updates(
        self, bot: str, offset: int | None, wait_seconds: int, *, limit: int = MOST_UPDATES
    ) -> list[Any]:
        """Return the updates from ``offset`` on, unread, and confirm all before it.

        Cancelling it closes the connection, which tells Telegram that nobody is polling any more.

        Raises:
            ReceivingError: the call failed.
        """
        asked: dict[str, Any] = {"timeout": wait_seconds, "limit": limit, **self._allowed()}
        if offset is not None:
            asked["offset"] = offset
        result = await self._call(bot, "getUpdates", asked, wait_seconds + ANSWER_SECONDS)
        if not isinstance(result, list):
            raise NoAnswerError("Telegram's answer to getUpdates is not a list of updates.")
        return result

    async def set_webhook(self, bot: str, url: str, secret: str, max_connections: int) -> None:
        """Have updates posted to ``url``, pending ones included.

        Raises:
            ReceivingError: the call failed.
        """
        asked = {"url": url, "secret_token": secret, "max_connections": max_connections, **self._allowed()}
        await self._call(bot, "setWebhook", asked, ANSWER_SECONDS)

    async def delete_webhook(self, bot: str) -> None:
        """Have updates wait to be polled, pending ones included. Does nothing if there is no webhook.

        Raises:
            ReceivingError: the call failed.
        """
        await self._call(bot, "deleteWebhook", {"drop_pending_updates": False}, ANSWER_SECONDS)

    async def webhook_info(self, bot: str) -> dict[str, Any]:
        """Return Telegram's information on the webhook.

        Raises:
            ReceivingError: the call failed.
        """
        result = await self._call(bot, "getWebhookInfo", {}, ANSWER_SECONDS)
        if not isinstance(result, dict):
            raise NoAnswerError("Telegram's answer to getWebhookInfo is not an object.")
        return result

    async def close(self) -> None:
        """Cut off calls under way."""
        await self._session.close()

    def _allowed(self) -> dict[str, Sequence[str]]:
        """Sent with every call: if it is left out, Telegram keeps the last value, perhaps set by another program."""
        return {"allowed_updates": self._settings.updates.allowed_updates}

    async def _call(self, bot: str, method: str, asked: dict[str, Any], seconds: float) -> Any:
        url = f"{self._settings.telegram_api_url}/bot{self._settings.token(bot).get_secret_value()}/{method}"
        timeout = aiohttp.ClientTimeout(total=seconds + CONNECT_SECONDS, connect=CONNECT_SECONDS)
        try:
            async with await self._session.request("POST", url, json=asked, timeout=timeout) as answer:
                status, body = answer.status, await _whole(answer)
        except TimeoutError:
            raise NoAnswerError(f"Telegram does not answer {method} within {seconds:g} s.") from None
        except (aiohttp.ClientError, OSError) as error:
            raise NoAnswerError(f"Telegram cannot be reached for {method} ({_reason(error)}).") from None
        return _result(method, status, body)


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
    """The system's message, or else the error's type. Its own text may hold the URL."""
    number = error.errno if isinstance(error, OSError) else None
    return os.strerror(number) if number and number > 0 else type(error).__name__
