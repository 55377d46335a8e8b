"""Posts updates to webhooks as Telegram does.

Updates of one chat are posted one at a time, in order: the next is posted once the previous one was answered with a
2xx. Chats do not wait for each other, up to ``max_connections`` posts at once. A failed post is repeated at once, then
after 2, 4, 8 … up to 60 s, or after the answer's ``Retry-After`` (an hour at most), until its update expires. The
body of a 2xx may itself be a call, ``{"method": "sendMessage", …}``, which is then made as if it had been sent.

State: a lane per chat with unposted updates, each served by one task that ends when its lane is empty. Updates are
stored only in the inbox, so stopping the sender at any point loses nothing. Used by the event loop only.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

from floodgate.fake_telegram.calls import decode_json
from floodgate.fake_telegram.errors import ApiError
from floodgate.fake_telegram.updates import Inbox, InboxUpdate, Webhook

SECRET_HEADER: Final = "X-Telegram-Bot-Api-Secret-Token"
POST_TIMEOUT_SECONDS: Final = 60.0
LONGEST_RETRY_AFTER_SECONDS: Final = 3600.0
LONGEST_REPLY_BYTES: Final = 1024 * 1024

log = logging.getLogger("floodgate.fake")


@dataclass(frozen=True, slots=True)
class PostBackoff:
    """The waits between posts of one update: none after the first failure, then doubling."""

    unit_seconds: float = 1.0
    longest_seconds: float = 60.0

    def after(self, failures: int) -> float:
        """Return the wait in seconds after the n-th failure in a row, n from 1."""
        if failures <= 1:
            return 0.0
        return min(self.unit_seconds * 2.0 ** min(failures - 1, 32), self.longest_seconds)


class PostFailedError(Exception):
    """A post that was not answered with a 2xx. ``retry_after`` is 0 if the answer has none."""

    def __init__(self, reason: str, retry_after: float = 0.0) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class WebhookSender:
    """Posts one bot's updates to one webhook, from ``start`` to ``stop``."""

    def __init__(
        self,
        inbox: Inbox,
        webhook: Webhook,
        *,
        wall: Callable[[], float],
        backoff: PostBackoff,
        on_reply: Callable[[dict[str, Any]], None],
    ) -> None:
        self._inbox = inbox
        self._webhook = webhook
        self._wall = wall
        self._backoff = backoff
        self._on_reply = on_reply
        self._lanes: dict[int, deque[InboxUpdate]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections = asyncio.Semaphore(webhook.max_connections)
        self._session: aiohttp.ClientSession | None = None

    def start(self) -> None:
        """Post the pending updates, and then new ones as they come."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._webhook.max_connections, ssl=not self._webhook.has_certificate),
            timeout=aiohttp.ClientTimeout(total=POST_TIMEOUT_SECONDS),
        )
        self._inbox.on_new = self._line_up
        for update in list(self._inbox.pending.values()):
            self._line_up(update)

    async def stop(self) -> None:
        """Cancel all posts. Unconfirmed updates stay in the inbox."""
        self._inbox.on_new = None
        tasks, session, self._session = list(self._tasks), self._session, None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if session is not None:
            await session.close()

    def _line_up(self, update: InboxUpdate) -> None:
        lane = self._lanes.get(update.lane)
        if lane is not None:
            lane.append(update)
            return
        self._lanes[update.lane] = deque([update])
        task = asyncio.create_task(self._serve(update.lane), name=f"webhook lane {update.lane}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, lane_id: int) -> None:
        lane = self._lanes[lane_id]
        while lane:
            await self._deliver(lane[0])
            self._inbox.forget(lane.popleft().update_id)
        del self._lanes[lane_id]

    async def _deliver(self, update: InboxUpdate) -> None:
        failures = 0
        while update.expires_at > self._inbox.clock() and update.update_id in self._inbox.pending:
            try:
                await self._post(update)
                return
            except PostFailedError as failed:
                failures += 1
                self._note(str(failed))
                await asyncio.sleep(failed.retry_after or self._backoff.after(failures))

    async def _post(self, update: InboxUpdate) -> None:
        session = self._session
        if session is None:
            raise asyncio.CancelledError
        secret = self._webhook.secret_token
        headers = {SECRET_HEADER: secret} if secret else {}
        try:
            async with (
                self._connections,
                session.post(
                    self._webhook.url, json=update.as_json(), headers=headers, allow_redirects=False
                ) as response,
            ):
                body = await _start_of(response)
                _check(response)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise PostFailedError(f"Connection failed: {type(error).__name__}") from error
        self._take_reply(response.content_type, body)

    def _take_reply(self, content_type: str, body: bytes) -> None:
        if content_type != "application/json" or not body:
            return
        try:
            reply = decode_json(body)
        except ApiError:
            return  # Telegram looks for a call in the body, and ignores any other body
        if reply.get("method"):
            self._on_reply(reply)

    def _note(self, reason: str) -> None:
        self._webhook.last_error_date = int(self._wall())
        self._webhook.last_error_message = reason
        log.debug("webhook post failed: %s", reason)


async def _start_of(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > LONGEST_REPLY_BYTES:
            return b""  # too long to be a call
    return bytes(body)


def _check(response: aiohttp.ClientResponse) -> None:
    if 200 <= response.status <= 299:
        return
    try:
        retry_after = min(float(response.headers.get("Retry-After", "0")), LONGEST_RETRY_AFTER_SECONDS)
    except ValueError:
        retry_after = 0.0
    raise PostFailedError(
        f"Wrong response from the webhook: {response.status} {response.reason}", max(retry_after, 0.0)
    )


class Webhooks:
    """The webhook senders of all bots."""

    def __init__(
        self, wall: Callable[[], float], backoff: PostBackoff, on_reply: Callable[[int, dict[str, Any]], None]
    ) -> None:
        self._wall = wall
        self._backoff = backoff
        self._on_reply = on_reply
        self._senders: dict[int, WebhookSender] = {}

    async def switch(self, bot_id: int, inbox: Inbox) -> None:
        """Stop a bot's sender, and start one for the inbox's current webhook, if any."""
        await self._end(bot_id)
        if inbox.webhook is None:
            return
        sender = WebhookSender(
            inbox,
            inbox.webhook,
            wall=self._wall,
            backoff=self._backoff,
            on_reply=lambda reply: self._on_reply(bot_id, reply),
        )
        self._senders[bot_id] = sender
        sender.start()

    async def stop(self) -> None:
        """Stop all senders."""
        for bot_id in list(self._senders):
            await self._end(bot_id)

    async def _end(self, bot_id: int) -> None:
        sender = self._senders.pop(bot_id, None)
        if sender is not None:
            await sender.stop()
