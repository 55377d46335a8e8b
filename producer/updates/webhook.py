"""Webhooks: Telegram posts each update, and gets 200 only once RabbitMQ has confirmed it. Telegram repeats the rest.

Every receiver accepts posts, active or not, so a load balancer may send them to any: Telegram posts a chat's updates
one at a time, and an update that it posts twice has the same id. Only the active receiver registers the webhook.

A post must carry the bot's secret. It is derived from the bot's token, so all receivers agree on it without a setting
and nobody can derive it without the token. The body of a post without the secret is not read.

    200  RabbitMQ has the update        404  no such bot
    400  not an update                  405  not a POST
    403  wrong secret, or none          413  larger than FLOODGATE_UPDATES__MAX_BODY_BYTES
    408  the body comes too slowly      503  RabbitMQ does not accept it now
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
from floodgate.producer.http_body import BodyTooLargeError, BodyTooSlowError, body_pieces
from floodgate.producer.updates.intake import Intake
from floodgate.producer.updates.outage_backoff import OutageBackoff
from floodgate.producer.updates.telegram import ReceivingApi

logger = logging.getLogger("floodgate.updates")

SECRET_HEADER: Final = "x-telegram-bot-api-secret-token"
BODY_SECONDS: Final = 10.0
# How often the active receiver checks that the webhook is still registered and that posts arrive.
CHECK_SECONDS: Final = 30.0


class PostError(Exception):
    """A refused post and its HTTP status."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def secret_of(token: SecretStr) -> str:
    """The secret that each of Telegram's posts for the bot of this token must carry."""
    return hmac.new(token.get_secret_value().encode(), b"floodgate webhook", sha256).hexdigest()


class Posts:
    """ASGI application that accepts Telegram's posts. Belongs to the event loop."""

    def __init__(self, settings: Settings, intake: Intake) -> None:
        self._most_bytes = settings.updates.max_body_bytes
        self._partitions = settings.update_partitions
        self._intake = intake
        self._secrets = {bot: secret_of(token).encode() for bot, token in settings.tokens.items()}
        self._refused: Counter[int] = Counter()  # by status, since the last log line
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
            why = str(error) if isinstance(error, MalformedUpdateError) else "Not an update: the body is not JSON."
            raise PostError(400, why) from None
        await self._intake.accept(bot, [message])

    def _bot(self, request: Request) -> str:
        """The bot named by the last part of the path, whatever prefix a proxy adds."""
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
        try:
            return b"".join([piece async for piece in body_pieces(request, self._most_bytes, BODY_SECONDS)])
        except BodyTooLargeError:
            raise PostError(413, f"More than {self._most_bytes} bytes: FLOODGATE_UPDATES__MAX_BODY_BYTES.") from None
        except BodyTooSlowError:
            raise PostError(408, "The body did not come.") from None
        except ClientDisconnect:
            raise PostError(400, "The body ended in the middle.") from None

    def _say(self, error: PostError) -> None:
        """Log at most one line per minute and status: anybody may post anything here."""
        self._refused[error.status] += 1
        if self._refusals[error.status].is_due():
            logger.warning("%d posts refused with %d: %s", self._refused.pop(error.status), error.status, error)


class Registration:
    """Registers one bot's webhook with Telegram and checks it from time to time. Belongs to the event loop.

    Args:
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
        """Run until cancelled, or until this receiver is no longer the active one. The webhook stays registered."""
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
