"""Decides which stream of a client enqueues its next call, and when. Belongs to one event loop.

Three kinds of turns, each bounded:

- refreshes of what a chat shows take turns within the window (:mod:`floodgate.producer.streaming.window`); the stream
  whose chat shows the oldest text is next, so that the bot's rate is shared evenly between chats. Only then is the
  newest text taken. Where messages are edited, a message in which the text goes on is a refresh too;
- messages with first words, and final texts, go with interactive priority, but at most :data:`PROMPT` at once, so that
  however many streams begin or end together, a person's message waits for a fifth of a second at most. First words wait
  for their turn here; a final text does not wait, and goes with the refreshes' priority if there is no room;
- drafts with first words, at most :data:`FIRST_DRAFTS` at once: they do not count against the bot's rate, and occupy a
  person's queue only while they are sent.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from floodgate.producer.streaming.window import LONGEST_SECONDS, RefreshWindow

PROMPT: Final = 6
FIRST_DRAFTS: Final = 24
MOST_REFUSED: Final = 10_000


class TurnKind(Enum):
    """What a call waits for."""

    REFRESH = auto()
    FIRST_MESSAGE = auto()
    FIRST_DRAFT = auto()
    NOTHING = auto()
    """Drafts that follow the first: nobody waits behind them."""


@dataclass(eq=False, slots=True)
class Turn:
    """The right to enqueue one call, until it ends or has taken too long to count."""

    give_back: Callable[[float | None], None]
    loop: asyncio.AbstractEventLoop
    began: float
    timer: asyncio.TimerHandle | None = None
    at_end: Callable[[], None] | None = None

    @classmethod
    def lasting(
        cls, seconds: float, give_back: Callable[[float | None], None], loop: asyncio.AbstractEventLoop
    ) -> Turn:
        """Begin a turn that ends by itself after so long."""
        turn = cls(give_back, loop, loop.time())
        turn.timer = loop.call_later(seconds, turn.over)
        return turn

    def over(self) -> None:
        """The call has ended. Safe to call twice."""
        self._end(self.loop.time() - self.began)

    def drop(self) -> None:
        """The call was not made, or withdrawn. Safe to call twice."""
        self._end(None)

    def _end(self, seconds: float | None) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
            self.give_back(seconds)
            if self.at_end is not None:
                self.at_end()


@dataclass(eq=False, slots=True)
class TurnRequest:
    """A stream that waits for a turn."""

    shown_at: float
    not_before: float
    future: asyncio.Future[Turn] = field(repr=False)


class PromptTurns:
    """The turns of calls with interactive priority: so many at once, in the order in which they were asked for."""

    def __init__(self, most: int, loop: asyncio.AbstractEventLoop) -> None:
        self._most = most
        self._loop = loop
        self._taken = 0
        self._waiters: deque[asyncio.Future[Turn]] = deque()

    def ask(self) -> asyncio.Future[Turn]:
        """Ask for a turn. To withdraw, cancel it."""
        future: asyncio.Future[Turn] = self._loop.create_future()
        if not self._waiters and (turn := self.take()) is not None:
            future.set_result(turn)
        else:
            self._waiters.append(future)
        return future

    def take(self) -> Turn | None:
        """Return a turn at once; None if there are too many of them."""
        if self._taken >= self._most:
            return None
        self._taken += 1
        return Turn.lasting(LONGEST_SECONDS, self._over, self._loop)

    def _over(self, _seconds: float | None) -> None:
        self._taken -= 1
        while self._waiters and self._taken < self._most:
            future = self._waiters.popleft()
            if not future.done() and (turn := self.take()) is not None:
                future.set_result(turn)


class Turns:
    """The turns of one client's streams for one bot."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.streams = 0
        """How many streams are open."""
        self.window = RefreshWindow()
        self._refreshes = 0
        self._waiters: list[TurnRequest] = []
        self._alarm: asyncio.TimerHandle | None = None
        self.prompt = PromptTurns(PROMPT, loop)
        """Of messages with first words, and of final texts."""
        self.first_drafts = PromptTurns(FIRST_DRAFTS, loop)
        """Of drafts with first words."""
        self._without_drafts: dict[str, None] = {}

    def takes_drafts(self, chat: str) -> bool:
        """Whether Telegram has not refused drafts in a chat so far."""
        return chat not in self._without_drafts

    def refuse_drafts(self, chat: str) -> None:
        """Remember that Telegram refuses drafts in a chat. The latest :data:`MOST_REFUSED` are remembered."""
        self._without_drafts[chat] = None
        while len(self._without_drafts) > MOST_REFUSED:
            del self._without_drafts[next(iter(self._without_drafts))]

    def for_refresh(self, shown_at: float, not_before: float) -> asyncio.Future[Turn]:
        """Ask for a turn to refresh a chat that shows what it shows since ``shown_at``. To withdraw, cancel it."""
        waiter = TurnRequest(shown_at, not_before, self.loop.create_future())
        waiter.future.add_done_callback(lambda _: self._left(waiter))
        self._waiters.append(waiter)
        self._pick()
        return waiter.future

    def _refresh_over(self, seconds: float | None) -> None:
        self._refreshes -= 1
        if seconds is not None:
            self.window.ended(seconds, self.streams)
        self._pick()

    def _left(self, waiter: TurnRequest) -> None:
        if waiter.future.cancelled() and waiter in self._waiters:
            self._waiters.remove(waiter)

    def _pick(self) -> None:
        """Give turns to those that are due, the oldest first, and set an alarm for when the next is due."""
        now = self.loop.time()
        while self._waiters and self._refreshes < int(self.window.size):
            due = [waiter for waiter in self._waiters if waiter.not_before <= now and not waiter.future.done()]
            if not due:
                break
            waiter = min(due, key=lambda each: each.shown_at)
            self._waiters.remove(waiter)
            self._refreshes += 1
            waiter.future.set_result(Turn.lasting(LONGEST_SECONDS, self._refresh_over, self.loop))
        self._set_alarm(now)

    def _set_alarm(self, now: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        later = [waiter.not_before for waiter in self._waiters if waiter.not_before > now]
        if later:
            self._alarm = self.loop.call_at(min(later), self._pick)
