"""One python-telegram-bot ``Bot`` per configured bot, which calls any method with plain JSON.

Jobs carry the Bot API's own names and JSON, and callers want Telegram's own JSON back, so the library's types are not
used here; its calls are: parameters, uploads, request, answer. ``Bot.initialize`` is not called, because it calls getMe
and a worker must start even while Telegram cannot be reached.

A refusal leaves the request as :class:`~floodgate.actors.answers.BotApiRefusalError`, before the library turns it into
one of its own errors, which would drop the code and the parameters.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
from contextlib import suppress
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import aiohttp
from telegram import Bot, InputFile
from telegram.error import NetworkError, TelegramError
from yarl import URL

from floodgate.actors.answers import (
    Accepted,
    Answer,
    BotApiRefusalError,
    Break,
    Refusal,
    answer_to_error,
    read_json,
    read_refusal,
    refusal_from_fields,
)
from floodgate.actors.request import JSON_HEADERS, AiohttpRequest
from floodgate.broker.amqp.consumer import ANSWERS_PREFETCH
from floodgate.broker.errors import CutOffError
from floodgate.broker.process.logs import RedactTokens
from floodgate.broker.settings.model import Settings

if TYPE_CHECKING:
    from telegram._utils.types import JSONDict

# At most this much of a call's time is spent on connecting. The rest is Telegram's: slow mode takes up to 10 s.
_CONNECT_SECONDS: Final = 5.0
_POOL_SECONDS: Final = 1.0
_MAX_CONNECTIONS: Final = 1000
_WARM_UP_SECONDS: Final = 3.0
_CONNECTIONS_AT_START: Final = 4  # 30 calls a second of 0.1 s each are three at once
_BAD_TOKEN: Final = frozenset({401, 404})
_logger: Final = logging.getLogger("floodgate.bot")


class SendingRequest(AiohttpRequest):
    """Raises ``BotApiRefusalError`` with the whole refusal for any status other than 2xx."""

    __slots__ = ()

    async def do_request(self, *args: Any, **kwargs: Any) -> tuple[int, bytes]:
        status, body = await super().do_request(*args, **kwargs)
        if not 200 <= status <= 299:
            raise BotApiRefusalError(read_refusal(status, body))
        return status, body

    async def post_json(self, url: URL, params: dict[str, Any], timeout: aiohttp.ClientTimeout) -> Any:
        """Make a call without files; return Telegram's own result. Takes a third of the library's time."""
        body = json.dumps(params).encode()
        status, answer = await self.exchange("POST", url, timeout, data=body, headers=JSON_HEADERS)
        if not 200 <= status <= 299:
            raise BotApiRefusalError(read_refusal(status, answer))
        return self.parse_json_payload(answer)["result"]

    @staticmethod
    def parse_json_payload(payload: bytes) -> JSONDict:
        """Parse a 2xx answer into an object with a ``result``. The library's method would log unreadable bodies."""
        fields = read_json(payload)
        if isinstance(fields, dict) and fields.get("ok") is False:
            raise BotApiRefusalError(refusal_from_fields(200, fields))
        if not isinstance(fields, dict) or "result" not in fields:
            raise NetworkError("unreadable answer") from CutOffError("unreadable answer with a status of 2xx")
        return fields


class SendingBot(Bot):
    """A bot that keeps its token out of ``repr`` and logs."""

    # The library logs the URL, token included, at DEBUG.
    _LOGGER = _logger

    def __repr__(self) -> str:
        return f"SendingBot[{self.token.partition(':')[0]}]"

    async def call(self, method: str, params: dict[str, Any], timeout: timedelta) -> Any:
        """Call a method; return Telegram's result. ``do_api_request`` would warn, and break plain ``media`` lists."""
        request = self.request
        assert isinstance(request, SendingRequest)
        if not any(isinstance(value, InputFile) for value in params.values()):
            return await request.post_json(_url(self.base_url, method), params, _client_timeout(timeout))
        whole = timeout.total_seconds()
        connect, pool = _connect_and_pool(whole)
        return await self._do_post(
            method,
            params,
            connect_timeout=connect,
            pool_timeout=pool,
            read_timeout=whole - connect - pool,
            write_timeout=0,  # the request adds them up, and the sum is the whole
        )


@lru_cache(maxsize=4096)  # bots times methods in use; parsing takes ten times the look-up
def _url(base_url: str, method: str) -> URL:
    return URL(f"{base_url}/{method}", encoded=True)


@lru_cache(maxsize=64)
def _client_timeout(whole: timedelta) -> aiohttp.ClientTimeout:
    seconds = whole.total_seconds()
    connect, pool = _connect_and_pool(seconds)
    return aiohttp.ClientTimeout(total=seconds, connect=connect + pool, sock_connect=connect, ceil_threshold=math.inf)


def _connect_and_pool(whole: float) -> tuple[float, float]:
    return min(_CONNECT_SECONDS, whole / 4), min(_POOL_SECONDS, whole / 8)


class BotSessions:
    """Calls the Bot API as any configured bot, over one connection pool.

    Belongs to one event loop: all but the constructor runs on it. Nothing is opened before the first call.
    """

    def __init__(self, settings: Settings) -> None:
        _logger.addFilter(RedactTokens())
        self._settings = settings
        self._bots: dict[str, SendingBot] = {}
        self._request: SendingRequest | None = None
        self._closed = False

    async def call(self, bot: str, method: str, params: dict[str, Any], timeout: timedelta) -> Answer:
        """Make one call and return its answer. Returns within ``timeout``, or is cancelled.

        Args:
            method: the Bot API's own name, as in ``sendMessage``.
            params: as the Bot API documents them, nested values as JSON values.

        Raises:
            UnknownBotError: no bot of this name is configured.
        """
        if self._closed:
            return Break("the worker is shutting down", surely_not_sent=True, ours=True)
        started = time.monotonic()
        answer = await self._ask(await self._open(bot), method, params, timeout)
        if isinstance(answer, Refusal) and answer.status == 404:
            left = timeout - timedelta(seconds=time.monotonic() - started)
            return await self._explain_not_found(bot, answer, left)
        return answer

    async def open(self) -> None:
        """Prepare every bot and open some connections, so that the first calls arrive as promptly as later ones: a Bot
        API that judges rates at arrival takes a late first call and a prompt thirty-first for a burst.

        Failed connections are ignored: a worker must start even while Telegram cannot be reached.
        """
        for name in self._settings.tokens:
            await self._open(name)
        request = await self._open_request()
        root = f"{self._settings.telegram_api_url}/"
        await asyncio.gather(*(_knock(request, root) for _ in range(_CONNECTIONS_AT_START)))

    async def close(self) -> None:
        """Close all connections; calls under way are cut off. Safe to call twice, and when nothing was opened."""
        self._closed = True
        self._bots.clear()
        request, self._request = self._request, None
        if request is not None:
            await request.shutdown()

    async def _open(self, name: str) -> SendingBot:
        if (bot := self._bots.get(name)) is None:
            token = self._settings.token(name).get_secret_value()
            bot = self._bots[name] = _bot(token, self._settings.telegram_api_url, await self._open_request())
        return bot

    async def _open_request(self) -> SendingRequest:
        if self._request is None:
            # As many calls as can be under way if this process owns every queue, so that none waits for the pool.
            in_hand = (2 * self._settings.partitions + ANSWERS_PREFETCH) * max(1, len(self._settings.tokens))
            self._request = SendingRequest(
                connections=min(_MAX_CONNECTIONS, in_hand), proxy=self._settings.telegram_proxy
            )
        await self._request.initialize()
        return self._request

    async def _explain_not_found(self, bot: str, answer: Refusal, timeout: timedelta) -> Answer:
        """A 404 means an unknown method or an unknown bot. getMe tells which: every server has that method."""
        me = await self._ask(await self._open(bot), "getMe", {}, timeout)
        if isinstance(me, Accepted):
            return answer
        if isinstance(me, Refusal) and me.status in _BAD_TOKEN:
            return Refusal(401, f"{answer.description} (getMe too: {me.description})", from_bot_api=me.from_bot_api)
        return Break(f"{answer.description}, and getMe could not tell why", surely_not_sent=True)

    @staticmethod
    async def _ask(bot: SendingBot, method: str, params: dict[str, Any], timeout: timedelta) -> Answer:
        try:
            return Accepted(await bot.call(method, params, timeout))
        except TelegramError as error:
            return answer_to_error(error)


async def _knock(request: SendingRequest, url: str) -> None:
    with suppress(TelegramError):  # any answer will do: there is nothing at the Bot API's root
        await request.do_request(url, "GET", read_timeout=_WARM_UP_SECONDS)


def _bot(token: str, api_url: str, request: SendingRequest) -> SendingBot:
    return SendingBot(
        token,
        base_url=f"{api_url}/bot",
        base_file_url=f"{api_url}/file/bot",
        request=request,
        get_updates_request=request,  # never used; without it the library would build a client of its other stack
    )
