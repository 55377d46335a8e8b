"""Admission's calls as values, and two interfaces for making them: blocking and async.

A store defines once, by name, how each call is carried out. :class:`BlockingAdmission` (programs, the command line)
makes one call at a time and waits. :class:`BatchedAdmission` (workers, the gateway) awaits calls, and carries out all
that wait at the same time together: in one SQLite transaction, or one round trip to Redis.

Order. Calls of one event loop are carried out in the order in which they were made, within a batch and from batch to
batch; a batch begins when the one before has ended. So a settlement goes before the ask that depends on it, and two
jobs of one line keep their order.

Bounds. A batch holds at most :data:`MOST_IN_A_BATCH` calls. The number of waiting calls is bounded by the number of
callers: messages in hand, or requests being answered.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Protocol, cast

from floodgate.broker.admission.contract import (
    Ask,
    CallFamily,
    ChatExplanation,
    Decision,
    NotKept,
    Record,
    Scope,
    Settlement,
    Snapshot,
    UnreachableChat,
)
from floodgate.broker.messages.job import Priority
from floodgate.broker.state.thread import resolve

MOST_IN_A_BATCH: Final = 256


@dataclass(frozen=True, slots=True)
class AdmissionCall:
    """A call of a ``contract.Admission`` method: its name, its bot, and its other arguments."""

    method: str
    bot: str
    arguments: tuple[Any, ...]


class BlockingAdmission(ABC):
    """``contract.Admission``, one call at a time. A store adds :meth:`_do` and ``close``."""

    @abstractmethod
    def _do(self, call: AdmissionCall) -> Any:
        """Carry out a call.

        Raises:
            StateUnavailableError: the store cannot answer.
        """

    @abstractmethod
    def close(self) -> None:
        """Release files and sockets. Safe to call twice."""

    def admit(self, ask: Ask) -> Decision:
        return cast("Decision", self._do(AdmissionCall("admit", ask.bot, (ask,))))

    def enqueued(self, bot: str, asks: Sequence[Ask]) -> None:
        self._do(AdmissionCall("enqueued", bot, (asks,)))

    def renew_unsettled(self, ask: Ask) -> Decision:
        return cast("Decision", self._do(AdmissionCall("renew_unsettled", ask.bot, (ask,))))

    def settle(self, ask: Ask, settlement: Settlement, grant: int | None = None) -> None:
        self._do(AdmissionCall("settle", ask.bot, (ask, settlement, grant)))

    def cancel(self, ask: Ask, listed: bool = True) -> Record:
        return cast("Record", self._do(AdmissionCall("cancel", ask.bot, (ask, listed))))

    def cancel_campaign(self, bot: str, campaign: str | None, before_ms: int) -> None:
        self._do(AdmissionCall("cancel_campaign", bot, (campaign, before_ms)))

    def lookup(self, bot: str, job_id: str) -> Record | None:
        return cast("Record | None", self._do(AdmissionCall("lookup", bot, (job_id,))))

    def reopen(self, bot: str, job_id: str) -> Record | None:
        return cast("Record | None", self._do(AdmissionCall("reopen", bot, (job_id,))))

    def mark_unreachable(self, bot: str, chat: str, why: str) -> None:
        self._do(AdmissionCall("mark_unreachable", bot, (chat, why)))

    def heard_from(self, bot: str, chat: str) -> bool:
        return cast("bool", self._do(AdmissionCall("heard_from", bot, (chat,))))

    def unreachable(self, bot: str, limit: int = 1000, offset: int = 0) -> Sequence[UnreachableChat]:
        return cast("Sequence[UnreachableChat]", self._do(AdmissionCall("unreachable", bot, (limit, offset))))

    def unreachable_among(self, bot: str, chats: Sequence[str]) -> Sequence[str]:
        return cast("Sequence[str]", self._do(AdmissionCall("unreachable_among", bot, (chats,))))

    def not_kept(self, bot: str, limit: int = 1000, offset: int = 0) -> Sequence[NotKept]:
        return cast("Sequence[NotKept]", self._do(AdmissionCall("not_kept", bot, (limit, offset))))

    def count_dropped(self, bot: str, reason: str, letters: int) -> None:
        self._do(AdmissionCall("count_dropped", bot, (reason, letters)))

    def pause(self, bot: str, chat: str | None, duration: timedelta, why: str) -> None:
        self._do(AdmissionCall("pause", bot, (chat, duration, why)))

    def too_many_requests(
        self, bot: str, chat: str | None, retry_after: timedelta, family: CallFamily = CallFamily.MESSAGES
    ) -> Scope:
        return cast("Scope", self._do(AdmissionCall("too_many_requests", bot, (chat, retry_after, family))))

    def resume(self, bot: str, chat: str | None) -> bool:
        return cast("bool", self._do(AdmissionCall("resume", bot, (chat,))))

    def migrate(self, bot: str, old_chat: str, new_chat: str) -> None:
        self._do(AdmissionCall("migrate", bot, (old_chat, new_chat)))

    def vouch_idle(self, bot: str) -> None:
        self._do(AdmissionCall("vouch_idle", bot, ()))

    def waiting(self, bot: str) -> Mapping[Priority, int]:
        return cast("Mapping[Priority, int]", self._do(AdmissionCall("waiting", bot, ())))

    def snapshot(self, bot: str) -> Snapshot:
        return cast("Snapshot", self._do(AdmissionCall("snapshot", bot, ())))

    def explain(self, bot: str, chat: str, job_id: str | None = None) -> ChatExplanation:
        return cast("ChatExplanation", self._do(AdmissionCall("explain", bot, (chat, job_id))))


class Batches(Protocol):
    """A store that carries out many calls at once. Belongs to one event loop, except for its constructor."""

    def begin(self, calls: Sequence[AdmissionCall], done: Callable[[Sequence[Any]], None]) -> None:
        """Carry out calls in order, without blocking. Then call ``done`` on the loop with a result or an exception for
        each. One batch at a time."""
        ...

    async def close(self) -> None:
        """Release files, sockets and threads once the current batch has ended. Safe to call twice, and unused."""
        ...


class BatchedAdmission:
    """``contract.Admission`` with each method awaited. Belongs to one event loop. Any method raises
    ``StateUnavailableError`` when the store cannot answer."""

    def __init__(self, store: Batches) -> None:
        self._store = store
        self._waiting: deque[tuple[AdmissionCall, asyncio.Future[Any]]] = deque()
        self._under_way: list[asyncio.Future[Any]] = []
        self._planned = False

    async def close(self) -> None:
        """Close the store. Safe to call twice."""
        await self._store.close()

    async def _do(self, call: AdmissionCall) -> Any:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._waiting.append((call, future))
        if not self._planned:  # calls of one iteration of the loop form a batch
            self._planned = True
            loop.call_soon(self._begin)
        return await future

    def _begin(self) -> None:
        """Start a batch of the waiting calls, unless one is in progress, which will start the next."""
        self._planned = False
        if self._under_way or not self._waiting:
            return
        size = min(len(self._waiting), MOST_IN_A_BATCH)
        batch = [self._waiting.popleft() for _ in range(size)]
        self._under_way = [future for _, future in batch]
        self._store.begin([call for call, _ in batch], self._end)

    def _end(self, results: Sequence[Any]) -> None:
        futures, self._under_way = self._under_way, []
        for future, result in zip(futures, results, strict=True):
            resolve(future, result)
        self._begin()

    async def admit(self, ask: Ask) -> Decision:
        return cast("Decision", await self._do(AdmissionCall("admit", ask.bot, (ask,))))

    async def enqueued(self, bot: str, asks: Sequence[Ask]) -> None:
        await self._do(AdmissionCall("enqueued", bot, (asks,)))

    async def renew_unsettled(self, ask: Ask) -> Decision:
        return cast("Decision", await self._do(AdmissionCall("renew_unsettled", ask.bot, (ask,))))

    async def settle(self, ask: Ask, settlement: Settlement, grant: int | None = None) -> None:
        await self._do(AdmissionCall("settle", ask.bot, (ask, settlement, grant)))

    async def cancel(self, ask: Ask, listed: bool = True) -> Record:
        return cast("Record", await self._do(AdmissionCall("cancel", ask.bot, (ask, listed))))

    async def cancel_campaign(self, bot: str, campaign: str | None, before_ms: int) -> None:
        await self._do(AdmissionCall("cancel_campaign", bot, (campaign, before_ms)))

    async def lookup(self, bot: str, job_id: str) -> Record | None:
        return cast("Record | None", await self._do(AdmissionCall("lookup", bot, (job_id,))))

    async def reopen(self, bot: str, job_id: str) -> Record | None:
        return cast("Record | None", await self._do(AdmissionCall("reopen", bot, (job_id,))))

    async def mark_unreachable(self, bot: str, chat: str, why: str) -> None:
        await self._do(AdmissionCall("mark_unreachable", bot, (chat, why)))

    async def heard_from(self, bot: str, chat: str) -> bool:
        return cast("bool", await self._do(AdmissionCall("heard_from", bot, (chat,))))

    async def unreachable(self, bot: str, limit: int = 1000, offset: int = 0) -> Sequence[UnreachableChat]:
        return cast("Sequence[UnreachableChat]", await self._do(AdmissionCall("unreachable", bot, (limit, offset))))

    async def unreachable_among(self, bot: str, chats: Sequence[str]) -> Sequence[str]:
        return cast("Sequence[str]", await self._do(AdmissionCall("unreachable_among", bot, (chats,))))

    async def not_kept(self, bot: str, limit: int = 1000, offset: int = 0) -> Sequence[NotKept]:
        return cast("Sequence[NotKept]", await self._do(AdmissionCall("not_kept", bot, (limit, offset))))

    async def count_dropped(self, bot: str, reason: str, letters: int) -> None:
        await self._do(AdmissionCall("count_dropped", bot, (reason, letters)))

    async def pause(self, bot: str, chat: str | None, duration: timedelta, why: str) -> None:
        await self._do(AdmissionCall("pause", bot, (chat, duration, why)))

    async def too_many_requests(
        self, bot: str, chat: str | None, retry_after: timedelta, family: CallFamily = CallFamily.MESSAGES
    ) -> Scope:
        return cast("Scope", await self._do(AdmissionCall("too_many_requests", bot, (chat, retry_after, family))))

    async def resume(self, bot: str, chat: str | None) -> bool:
        return cast("bool", await self._do(AdmissionCall("resume", bot, (chat,))))

    async def migrate(self, bot: str, old_chat: str, new_chat: str) -> None:
        await self._do(AdmissionCall("migrate", bot, (old_chat, new_chat)))

    async def vouch_idle(self, bot: str) -> None:
        await self._do(AdmissionCall("vouch_idle", bot, ()))

    async def waiting(self, bot: str) -> Mapping[Priority, int]:
        return cast("Mapping[Priority, int]", await self._do(AdmissionCall("waiting", bot, ())))

    async def snapshot(self, bot: str) -> Snapshot:
        return cast("Snapshot", await self._do(AdmissionCall("snapshot", bot, ())))

    async def explain(self, bot: str, chat: str, job_id: str | None = None) -> ChatExplanation:
        return cast("ChatExplanation", await self._do(AdmissionCall("explain", bot, (chat, job_id))))
