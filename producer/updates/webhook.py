"""Webhooks: Telegram posts each update, and is told 200 only when RabbitMQ has it. Anything else it posts again.

Every receiver takes posts, active or not, so that a load balancer may send them anywhere: Telegram itself posts a
chat's updates one at a time, and what it posts twice has the same id. Only the active one tells Telegram where to post.

A post must carry the bot's secret. It is made of the bot's token, so that all receivers agree on it without a setting
and nobody makes one without the token. Of a post without it, no body is read.

    200  RabbitMQ has the update        404  no such bot
    400  not an update                  405  not a post
    403  wrong secret, or none          413  larger than FLOODGATE_UPDATES__MAX_BODY_BYTES
    408  the body does not come         503  RabbitMQ does not take it now
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
from collections import Counter, defaultdict
from collections.abc import Callable
from hashlib import sha256
from typing import Any, Final

from pydantic import SecretStr
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from floodgate.broker.errors import MalformedUpdateError, RabbitMQError
from floodgate.broker.messages.update import publication, read_update
from floodgate.broker.process.outages import OutageLog
from floodgate.broker.settings.model import Settings
from floodgate.producer.updates.intake import Intake
from floodgate.producer.updates.outage_backoff import OutageBackoff
from floodgate.producer.updates.telegram import ReceivingApi

logger = logging.getLogger("floodgate.updates")

SECRET_HEADER: Final = "x-telegram-bot-api-secret-token"
BODY_SECONDS: Final = 10.0
# How often the active one looks whether Telegram still posts here, and whether its posts arrive.
CHECK_SECONDS: Final = 30.0


class PostError(Exception):
    """A post that is refused, with its status."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def secret_of(token: SecretStr) -> str:
    """What Telegram is to put into each post for the bot of this token."""
    return hmac.new(token.get_secret_value().encode(), b"floodgate webhook", sha256).hexdigest()


class Posts:
    """Takes Telegram's posts, as an ASGI application. Belongs to the event loop."""

    def __init__(self, settings: Settings, intake: Intake) -> None:
        self._most_bytes = settings.updates.max_body_bytes
        self._partitions = settings.update_partitions
        self._intake = intake
        self._secrets = {bot: secret_of(token).encode() for bot, token in settings.tokens.items()}
        self._refused: Counter[int] = Counter()  # by status, since it was last said
        self._refusals: defaultdict[int, OutageLog] = defaultdict(OutageLog)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            response = await self._answer(Request(scope, receive))
            await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        if request.method == "GET" and request.url.path == "/health":
            return PlainTextResponse("alive")
        try:
            await self._take(request)
        except PostError as error:
            self._say(error)
            return PlainTextResponse(str(error), error.status, {"Connection": "close"} if error.status == 413 else None)
        except RabbitMQError as error:
            self._say(PostError(503, str(error)))
            return PlainTextResponse("RabbitMQ does not take it now: post it again.", 503)
        return Response()

    async def _take(self, request: Request) -> None:
        bot = self._bot(request)
        try:
            update = read_update(bot, json.loads(await self._body(request)))
            message = publication(update, self._partitions)
        except (MalformedUpdateError, ValueError, RecursionError) as error:
            why = str(error) if isinstance(error, MalformedUpdateError) else "Not an update: no JSON."
            raise PostError(400, why) from None
        await self._intake.publish([message])

    def _bot(self, request: Request) -> str:
        """Whose update it is, by the last part of the path, whatever proxies put before it."""
        if request.method != "POST":
            raise PostError(405, "Updates are posted.")
        bot = request.url.path.rpartition("/")[2]
        secret = self._secrets.get(bot)
        if secret is None:
            raise PostError(404, "No such bot.")
        if not hmac.compare_digest(secret, request.headers.get(SECRET_HEADER, "").encode()):
            raise PostError(403, "Wrong secret.")
        return bot

    async def _body(self, request: Request) -> bytes:
        too_large = PostError(413, f"More than {self._most_bytes} bytes: FLOODGATE_UPDATES__MAX_BODY_BYTES.")
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > self._most_bytes:
            raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_SECONDS):
                async for piece in request.stream():
                    body += piece
                    if len(body) > self._most_bytes:
                        raise too_large
        except TimeoutError:
            raise PostError(408, "The body did not come.") from None
        except ClientDisconnect:
            raise PostError(400, "The body ended in the middle.") from None
        return bytes(body)

    def _say(self, error: PostError) -> None:
        """One line a minute and kind: anybody may post anything here."""
        self._refused[error.status] += 1
        if self._refusals[error.status].is_due():
            logger.warning("%d posts refused with %d: %s", self._refused.pop(error.status), error.status, error)


class Registration:
    """Tells Telegram where to post one bot's updates, and looks whether that goes well. Belongs to the event loop.

    Parameters:
        valid: whether this receiver is the active one.
    """

    def __init__(self, bot: str, api: ReceivingApi, settings: Settings, valid: Callable[[], bool]) -> None:
        self._bot = bot
        self._api = api
        self._max_connections = settings.updates.max_connections
        self._url = f"{settings.updates.webhook_url}/{bot}"
        self._secret = secret_of(settings.token(bot))
        self._valid = valid
        self._outage_backoff = OutageBackoff(bot)
        self._error_seen: Any = None

    async def run(self) -> None:
        """Until cancelled, or until we are not the active one. The webhook stays: posts go on to whoever is there."""
        await self._outage_backoff.retry(self._set, self._valid)
        while self._valid():
            await asyncio.sleep(CHECK_SECONDS)
            await self._outage_backoff.retry(self._check, self._valid)

    async def _set(self) -> None:
        await self._api.set_webhook(self._bot, self._url, self._secret, self._max_connections)
        logger.info("bot %s: Telegram posts updates to %s", self._bot, self._url)

    async def _check(self) -> None:
        info = await self._api.webhook_info(self._bot)
        if info.get("url") != self._url:
            logger.warning("bot %s: someone has changed the webhook; setting it again", self._bot)
            await self._set()
        happened = info.get("last_error_date")
        if happened is not None and happened != self._error_seen:
            self._error_seen = happened
            logger.warning("bot %s: Telegram's posts fail: %s", self._bot, str(info.get("last_error_message"))[:300])
