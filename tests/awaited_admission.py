"""A batched store for blocking tests: each call is awaited on an event loop in its own thread."""

from __future__ import annotations

from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from floodgate.broker.admission.clock import Clock
from floodgate.broker.admission.contract import Ask
from floodgate.broker.admission.policy import Policy
from floodgate.broker.process.event_loop import BackgroundLoop
from floodgate.broker.state.calls import AdmissionCall, BatchedAdmission, BlockingAdmission
from floodgate.broker.state.redis.admission import RedisBatches
from floodgate.broker.state.sqlite.admission import SqliteAdmission, SqliteBatches
from floodgate.broker.state.thread import StateThread

WAIT_SECONDS = 30.0


def on_sqlite(path: Path, policy: Policy, clock: Clock | None = None) -> AwaitedAdmission:
    thread = StateThread()
    return AwaitedAdmission(BatchedAdmission(SqliteBatches(SqliteAdmission(path, policy, clock), thread)), thread)


def on_redis(url: str, policy: Policy, clock: Clock | None = None) -> AwaitedAdmission:
    return AwaitedAdmission(BatchedAdmission(RedisBatches(url, policy, clock)))


class AwaitedAdmission(BlockingAdmission):
    """``contract.Admission`` on top of a :class:`BatchedAdmission`. Reopens after ``close``."""

    def __init__(self, batched: BatchedAdmission, thread: StateThread | None = None) -> None:
        self.batched = batched
        self._thread = thread
        self._io: BackgroundLoop | None = None  # while open

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        if self._io is None:
            self._io = BackgroundLoop(_crashed)
            self._io.start()
        return self._io.run(coroutine, WAIT_SECONDS)

    def close(self) -> None:
        self.run(self._close())
        io, self._io = self._io, None
        assert io is not None
        io.stop(WAIT_SECONDS)

    async def _close(self) -> None:
        await self.batched.close()
        if self._thread is not None:
            await self._thread.stop()

    def _do(self, call: AdmissionCall) -> Any:
        about_a_job = call.arguments and isinstance(call.arguments[0], Ask)
        arguments = call.arguments if about_a_job else (call.bot, *call.arguments)
        return self.run(getattr(self.batched, call.method)(*arguments))


def _crashed(error: BaseException) -> None:
    raise AssertionError("the loop of a test crashed") from error
