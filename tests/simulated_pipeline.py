"""A pipeline of workers and Telegram for streams, in one process and in virtual time.

Each partition has one job in hand; the bot's rate is shared by rank, interactive jobs first; a chat has its interval,
and a job that must wait for it makes way for the jobs behind it. Simplified, but of the shape that decides how old a
text is when a chat shows it.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict, deque
from dataclasses import dataclass, field
from typing import Any

from floodgate.broker.admission.contract import CANCELLED, SHED, Record, Standing
from floodgate.broker.errors import FloodgateError, StateUnavailableError
from floodgate.broker.messages.job import Job, Priority
from floodgate.broker.messages.method_table import Charge

CHAT_SECONDS = 1.05
GROUP_SECONDS = 3.0125


class Watched:
    def __init__(self) -> None:
        self.record: asyncio.Future[Record] = asyncio.get_running_loop().create_future()

    def close(self) -> None:
        self.record.cancel()


@dataclass
class Shown:
    at: float
    method: str
    chat: str
    text: str
    priority: str
    enqueued_at: float
    params: dict[str, Any] = field(repr=False)


class SimulatedPipeline:
    """The pipeline. ``shown`` lists the calls that Telegram carried out."""

    def __init__(
        self, partitions: int = 16, per_second: float = 29.4, call_seconds: tuple[float, float] = (0.04, 0.12)
    ) -> None:
        self.interval = 1 / per_second
        self.shown: list[Shown] = []
        self.withdrawn: list[Job] = []
        self.enqueued: list[Job] = []
        self.refusals: dict[str, str] = {}
        """Telegram's refusal by method."""
        self.away: FloodgateError | None = None
        self.store_away = False
        self.running = asyncio.Event()
        """Cleared while the workers stand still."""
        self.running.set()
        self._partitions = partitions
        self._call_seconds = call_seconds
        self._random = random.Random(1)
        self._records: dict[str, Record] = {}
        self._enqueued_at: dict[str, float] = {}
        self._watched: dict[str, list[Watched]] = defaultdict(list)
        self._queues: dict[tuple[str, int], deque[Job]] = defaultdict(deque)
        self._busy: set[tuple[str, int]] = set()
        self._asking: list[tuple[float, asyncio.Future[None]]] = []
        self._slot_at = 0.0
        self._chat_free: dict[str, float] = defaultdict(float)
        self._message_ids = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def watch(self, job: Job) -> Watched:
        watched = Watched()
        self._watched[job.id].append(watched)
        if (record := self._records.get(job.id)) is not None and record.standing in (Standing.SENT, Standing.DEAD):
            watched.record.set_result(record)
        return watched

    async def enqueue(self, job: Job) -> None:
        await asyncio.sleep(0.003)
        if self.away is not None:
            raise self.away
        self.enqueued.append(job)
        loop = asyncio.get_running_loop()
        self._enqueued_at[job.id] = loop.time()
        wait = 0.0 if job.not_before_ms is None else (job.not_before_ms - job.created_ms) / 1000
        if job.id not in self._records:
            loop.call_later(0.005 + wait, self._arrive, job)

    async def look(self, job: Job) -> Record | None:
        if self.store_away:
            raise StateUnavailableError("the store is away")
        return self._records.get(job.id)

    async def withdraw(self, *jobs: Job) -> list[Record]:
        await asyncio.sleep(0.002)
        if self.store_away:
            raise StateUnavailableError("the store is away")
        for job in jobs:
            record = self._records.get(job.id)
            if record is None or record.standing is Standing.WAITING:
                self.withdrawn.append(job)
                self._end(job, Record(Standing.DEAD, reason=CANCELLED))
        return [self._records[job.id] for job in jobs]

    async def result(self, job: Job, seconds: float) -> Any:
        watched = self.watch(job)
        return (await asyncio.wait_for(watched.record, seconds)).result

    def _end(self, job: Job, record: Record) -> None:
        self._records[job.id] = record
        for watched in self._watched.pop(job.id, ()):
            if not watched.record.done():
                watched.record.set_result(record)

    def _arrive(self, job: Job) -> None:
        key = (str(job.priority), job.partition(self._partitions))
        self._queues[key].append(job)
        if key not in self._busy:
            self._busy.add(key)
            task = asyncio.get_running_loop().create_task(self._work(key))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _work(self, key: tuple[str, int]) -> None:
        queue = self._queues[key]
        while queue:
            await self.running.wait()
            await self._handle(queue.popleft())
        self._busy.discard(key)

    async def _handle(self, job: Job) -> None:
        if job.id in self._records and self._records[job.id].standing is Standing.DEAD:
            return
        loop = asyncio.get_running_loop()
        if job.charged_as is Charge.TYPING:
            await self._call(job)
            return
        self._records[job.id] = Record(Standing.WAITING)
        if (wait := self._chat_free[job.chat or ""] - loop.time()) > 0:
            loop.call_later(wait, self._arrive, job)
            return
        await self._slot(job.priority)
        if self._records[job.id].standing is Standing.DEAD:
            return
        self._chat_free[job.chat or ""] = loop.time() + (
            GROUP_SECONDS if (job.chat or "").startswith("-") else CHAT_SECONDS
        )
        await self._call(job)

    async def _slot(self, priority: Priority) -> None:
        loop = asyncio.get_running_loop()
        rank = loop.time() + (10 if priority is Priority.BULK else 0)
        mine: asyncio.Future[None] = loop.create_future()
        self._asking.append((rank, mine))
        loop.call_at(max(loop.time(), self._slot_at), self._grant)
        await mine

    def _grant(self) -> None:
        loop = asyncio.get_running_loop()
        if not self._asking:
            return
        if loop.time() < self._slot_at:
            loop.call_at(self._slot_at, self._grant)
            return
        first = min(self._asking, key=lambda each: each[0])
        self._asking.remove(first)
        self._slot_at = max(loop.time(), self._slot_at) + self.interval
        first[1].set_result(None)

    async def _call(self, job: Job) -> None:
        loop = asyncio.get_running_loop()
        self._records[job.id] = Record(Standing.SENDING)
        await asyncio.sleep(self._random.uniform(*self._call_seconds))
        if (refusal := self.refusals.get(job.method)) is not None:
            reason = SHED if refusal == SHED else "content"
            error = {"error_code": 400, "description": refusal}
            self._end(job, Record(Standing.DEAD, reason=reason, error=error))
            return
        text = job.params.get("text", "")
        enqueued_at = self._enqueued_at[job.id]
        self.shown.append(
            Shown(loop.time(), job.method, job.chat or "", text, str(job.priority), enqueued_at, job.params)
        )
        result: Any = True
        if job.method == "sendMessage":
            self._message_ids += 1
            result = {"message_id": self._message_ids, "text": text}
        elif job.method == "editMessageText":
            result = {"message_id": job.params["message_id"], "text": text}
        self._end(job, Record(Standing.SENT, result=result))
