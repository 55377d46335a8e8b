"""The bots' updates, and long polling.

A bot's updates wait in one queue, in order of their ids, for 24 hours and up to ``PENDING`` of them, until a getUpdates
with a higher offset or a webhook's 2xx confirms them. Only one getUpdates of a bot may wait: a second one ends it with
a 409. Polling and webhooks use the same queue, so switching between them loses nothing. Used by the event loop only.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from floodgate.fake_telegram.errors import conflict

RETENTION_SECONDS: Final = 24 * 3600.0
PENDING: Final = 500_000
LONGEST_POLL_SECONDS: Final = 50.0
FIRST_UPDATE_ID: Final = 100_000_001

# Telegram sends these only if they are requested by name.
_ONLY_ON_REQUEST: Final = frozenset({"chat_member", "message_reaction", "message_reaction_count"})


@dataclass(frozen=True, slots=True)
class InboxUpdate:
    """An update. ``lane`` is the chat (or user) within which webhooks keep order; ``expires_at`` is monotonic."""

    update_id: int
    kind: str
    content: dict[str, Any]
    lane: int
    expires_at: float
    raw: Any = None
    """A value that is delivered in place of the update, to test how a bot reacts."""

    def as_json(self) -> Any:
        """Return the update as Telegram delivers it."""
        return self.raw if self.raw is not None else {"update_id": self.update_id, self.kind: self.content}


@dataclass(slots=True)
class Webhook:
    """A bot's webhook and its last error."""

    url: str
    secret_token: str
    max_connections: int
    has_certificate: bool
    last_error_date: int | None = None
    last_error_message: str = ""


@dataclass(slots=True)
class Inbox:
    """The updates of one bot."""

    clock: Callable[[], float]
    pending: OrderedDict[int, InboxUpdate] = field(default_factory=OrderedDict)
    allowed: frozenset[str] = frozenset()
    """Requested update types; empty means all but those that must be requested by name."""
    webhook: Webhook | None = None
    on_new: Callable[[InboxUpdate], None] | None = None
    """Called with each new update; set by the webhook's sender, if there is one."""
    _next_id: int = FIRST_UPDATE_ID
    _poll: asyncio.Future[None] | None = None

    def add(self, kind: str, content: dict[str, Any], lane: int, raw: Any = None) -> int | None:
        """Add an update. Return its id, or None if the bot has not requested its type."""
        if not self.wants(kind):
            return None
        update = InboxUpdate(self._next_id, kind, content, lane, self.clock() + RETENTION_SECONDS, raw)
        self._next_id += 1
        self.pending[update.update_id] = update
        if len(self.pending) > PENDING:
            self.pending.popitem(last=False)
        self._wake()
        if self.on_new is not None:
            self.on_new(update)
        return update.update_id

    def wants(self, kind: str) -> bool:
        """Return whether the bot has requested this type of update."""
        return kind in self.allowed if self.allowed else kind not in _ONLY_ON_REQUEST

    def forget(self, update_id: int) -> None:
        """Remove an update that the bot has confirmed."""
        self.pending.pop(update_id, None)

    def drop_expired(self) -> None:
        """Remove updates older than ``RETENTION_SECONDS``."""
        now = self.clock()
        while self.pending and next(iter(self.pending.values())).expires_at <= now:
            self.pending.popitem(last=False)

    async def poll(self, offset: int, limit: int, timeout_seconds: float) -> Sequence[InboxUpdate]:
        """Serve getUpdates: confirm updates before ``offset``, then wait for new ones.

        Raises:
            ApiError: A webhook is set, or another getUpdates came in the meantime.
        """
        if self.webhook is not None:
            raise conflict(
                "can't use getUpdates method while webhook is active; use deleteWebhook to delete the webhook first"
            )
        self.interrupt("terminated by other getUpdates request; make sure that only one bot instance is running")
        self._confirm(offset)
        if not self.pending and timeout_seconds > 0:
            await self._wait(min(timeout_seconds, LONGEST_POLL_SECONDS))
        self.drop_expired()
        return [update for _, update in zip(range(limit), self.pending.values(), strict=False)]

    def interrupt(self, reason: str | None) -> None:
        """End a waiting getUpdates with a conflict, or without updates if ``reason`` is None."""
        if self._poll is not None and not self._poll.done():
            if reason is None:
                self._poll.set_result(None)
            else:
                self._poll.set_exception(conflict(reason))

    async def _wait(self, seconds: float) -> None:
        poll = self._poll = asyncio.get_running_loop().create_future()
        timer = asyncio.get_running_loop().call_later(seconds, self._wake)
        try:
            await poll
        finally:
            timer.cancel()
            if self._poll is poll:
                self._poll = None

    def _wake(self) -> None:
        if self._poll is not None and not self._poll.done():
            self._poll.set_result(None)

    def _confirm(self, offset: int) -> None:
        if offset < 0:
            keep = set(list(self.pending)[offset:])
            for update_id in [u for u in self.pending if u not in keep]:
                self.forget(update_id)
            return
        while self.pending and next(iter(self.pending)) < offset:
            self.pending.popitem(last=False)


class Receiving:
    """The inboxes of all bots."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._inboxes: dict[int, Inbox] = {}

    def inbox(self, bot_id: int) -> Inbox:
        """Return a bot's inbox, creating it if needed."""
        inbox = self._inboxes.get(bot_id)
        if inbox is None:
            inbox = self._inboxes[bot_id] = Inbox(self._clock)
        return inbox

    def all(self) -> Sequence[Inbox]:
        """Return the inboxes of all bots."""
        return list(self._inboxes.values())
