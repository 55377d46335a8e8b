"""Faults and a notebook inside a process under test. The product's code does not know them and has no overhead.

A process is forked from one that has imported the heavy libraries (``multiprocessing``'s forkserver), replaces methods
of the real classes as its :class:`Hooks` require, and then runs the same code as ``floodgate worker``.

The notebook has one line per event, each written by a single ``write`` to a file opened for appending, so that a
SIGKILL leaves only complete lines::

    call <text> <monotonic seconds>                   the Bot API call begins
    answer <text> <monotonic seconds> <outcome>       its outcome
    settled <job id> <monotonic seconds> <settlement> the store has recorded it
"""

from __future__ import annotations

import functools
import inspect
import multiprocessing
import os
import signal
import struct
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PRELOADED = ["aiohttp", "dramatiq", "pika", "pydantic_settings", "sqlalchemy", "structlog", "telegram", "typer"]
# ``admits`` and ``records`` are the transactions of the state store for ``admit`` and ``settle``: after one, it is
# committed, but its callers have not yet received the answer.
POINTS = tuple(
    f"{when} {what}"
    for what in ("publish", "confirm", "admit", "admits", "call", "settle", "records", "ack")
    for when in ("before", "after")
)
# ``record`` writes how recipients ended; ``count`` changes the counts, within the transaction of a release or a record.
LEADER_POINTS = tuple(
    f"{when} {what}" for what in ("release", "publish", "confirm", "record", "count") for when in ("before", "after")
)

processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(PRELOADED)


@dataclass(frozen=True, slots=True)
class Hooks:
    """The faults for a process. ``crash_at`` is one of :data:`POINTS`; the process kills itself at the n-th time."""

    notebook: Path | None = None
    clock: Path | None = None
    crash_at: str | None = None
    crash_time: int = 1

    def put_on(self) -> None:
        if self.clock is not None:
            _shift_clock(self.clock)
        if self.notebook is not None:
            _keep_notes(self.notebook)
        if self.crash_at is not None:
            _arm(self.crash_at, self.crash_time)


def start_worker(env: Mapping[str, str], log: Path, hooks: Hooks | None = None) -> Any:
    """Starts a worker process without waiting for anything."""
    return start(run_worker, env, log, hooks or Hooks())


def start(target: Callable[..., None], env: Mapping[str, str], log: Path, *arguments: Any) -> Any:
    """Starts a process that runs ``target(*arguments)`` with these ``FLOODGATE_*`` settings and no others."""
    process = processes.Process(target=_enter, args=(target, dict(env), str(log), arguments), daemon=True)
    process.start()
    return process


def run_worker(hooks: Hooks) -> None:
    hooks.put_on()
    from floodgate.commands.worker import worker

    worker()


def start_leader(env: Mapping[str, str], log: Path, hooks: Hooks | None = None) -> Any:
    """Starts a process that leads campaigns, without waiting for anything."""
    return start(run_leader, env, log, hooks or Hooks())


def run_leader(hooks: Hooks) -> None:
    hooks.put_on()
    from floodgate.commands.campaigns import run

    run()


def _enter(target: Callable[..., None], env: dict[str, str], log: str, arguments: tuple[Any, ...]) -> None:
    for name in [name for name in os.environ if name.startswith("FLOODGATE_")]:
        del os.environ[name]
    os.environ.update(env)
    os.chdir(Path(log).parent)  # this folder has no .env
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdout = os.fdopen(1, "w", buffering=1, errors="backslashreplace")
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace")  # as in Python itself
    target(*arguments)


# The clock.


def step_clock(clock: Path, seconds: float) -> None:
    """From now on, the wall clock of processes with this file is off by this much, but not their monotonic clock."""
    clock.write_bytes(struct.pack("d", seconds))


def _shift_clock(clock: Path) -> None:
    if not clock.exists():
        step_clock(clock, 0)
    file = os.open(clock, os.O_RDONLY)
    real, real_ns = time.time, time.time_ns

    def offset() -> float:
        return float(struct.unpack("d", os.pread(file, 8, 0).ljust(8, b"\0"))[0])

    time.time = lambda: real() + offset()
    time.time_ns = lambda: real_ns() + int(offset() * 1e9)


# The notebook.


def append_to(path: Path) -> Callable[[str], None]:
    """Writes lines that a SIGKILL can neither undo nor truncate."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    return lambda line: void(os.write(file, line.encode() + b"\n"))


def void(_: Any) -> None:
    """For a lambda that returns nothing."""


def _keep_notes(path: Path) -> None:
    from floodgate.actors.sessions import BotSessions
    from floodgate.actors.settle import Settler
    from floodgate.broker.state.calls import BatchedAdmission

    note = append_to(path)
    call, settle, record = BotSessions.call, Settler.settle, BatchedAdmission.settle

    async def noted_call(self: BotSessions, bot: str, method: str, params: dict[str, Any], timeout: Any) -> Any:
        note(f"call {_name(params)} {time.monotonic():.6f}")
        return await call(self, bot, method, params, timeout)

    async def noted_settle(self: Settler, message: Any, job: Any, outcome: Any, **named: Any) -> None:
        note(f"answer {_name(job.params)} {time.monotonic():.6f} {type(outcome).__name__}")
        await settle(self, message, job, outcome, **named)

    async def noted_record(self: BatchedAdmission, ask: Any, settlement: Any, *rest: Any, **named: Any) -> None:
        await record(self, ask, settlement, *rest, **named)
        note(f"settled {ask.job_id} {time.monotonic():.6f} {type(settlement).__name__}")

    BotSessions.call, Settler.settle = noted_call, noted_settle  # type: ignore[method-assign]
    BatchedAdmission.settle = noted_record  # type: ignore[method-assign]


def _name(params: Mapping[str, Any]) -> str:
    return str(params.get("text") or params.get("caption")).replace(" ", "_")


# Crashing.


def _arm(point: str, nth: int) -> None:
    when, what = point.split()
    left = nth

    def reached() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    match what:
        case "publish":
            _arm_publishing(when, reached)
        case "admits" | "records":
            _arm_transactions(when, "admit" if what == "admits" else "settle", reached)
        case _:
            _arm_method(when, *_place(what), reached)


def _released(arguments: tuple[Any, ...]) -> bool:
    """Hands a permit back unused, as a busy process does: no call was made."""
    from floodgate.broker.admission.contract import Released

    return any(isinstance(each, Released) for each in arguments)


def _arm_method(when: str, owner: Any, name: str, reached: Callable[[], None]) -> None:
    method = getattr(owner, name)

    @functools.wraps(method)
    def crashing(*args: Any, **kwargs: Any) -> Any:
        if when == "before":
            reached()
        result = method(*args, **kwargs)
        if when == "after":
            reached()
        return result

    @functools.wraps(method)
    async def crashing_on_the_loop(*args: Any, **kwargs: Any) -> Any:
        if when == "before" and not _released(args):
            reached()
        result = await method(*args, **kwargs)
        if when == "after" and not _released(args):
            reached()
        return result

    setattr(owner, name, crashing_on_the_loop if inspect.iscoroutinefunction(method) else crashing)


def _arm_publishing(when: str, reached: Callable[[], None]) -> None:
    """Publications are taken from the outbox one by one and published together with the others there."""
    from floodgate.broker.amqp.publisher import Publisher

    if when == "before":
        _arm_method(when, Publisher, "_take", reached)
        return
    for name in ("_flush_outbox", "_write_at_once"):
        _arm_writing(name, reached)


def _arm_writing(name: str, reached: Callable[[], None]) -> None:
    from floodgate.broker.amqp.publisher import Publisher

    write = getattr(Publisher, name)

    @functools.wraps(write)
    def crashing(self: Publisher, *args: Any) -> Any:
        tag = self._tag
        result = write(self, *args)
        for _ in range(self._tag - tag):
            reached()
        return result

    setattr(Publisher, name, crashing)


def _arm_transactions(when: str, method: str, reached: Callable[[], None]) -> None:
    from floodgate.broker.state.redis.admission import RedisBatches
    from floodgate.broker.state.sqlite.admission import SqliteAdmission

    carry_out, carry_out_there = SqliteAdmission.do_all, RedisBatches._results

    def crash(now: str, calls: Any) -> None:
        if when == now and any(call.method == method and not _released(call.arguments) for call in calls):
            reached()

    def crashing(self: SqliteAdmission, calls: Any) -> Any:
        crash("before", calls)
        results = carry_out(self, calls)
        crash("after", calls)
        return results

    async def crashing_there(self: RedisBatches, calls: Any) -> Any:
        crash("before", calls)
        results = await carry_out_there(self, calls)
        crash("after", calls)
        return results

    SqliteAdmission.do_all = crashing  # type: ignore[method-assign]
    RedisBatches._results = crashing_there  # type: ignore[method-assign]


_STORED = {"release": "release", "record": "settle"}


def _place(what: str) -> tuple[Any, str]:
    """The method that implements a point."""
    from floodgate.broker.amqp.consumer import Subscription
    from floodgate.broker.amqp.publisher import Publisher
    from floodgate.broker.state.calls import BatchedAdmission

    match what:
        case "confirm":
            return Publisher, "_on_confirm"
        case "ack":
            return Subscription, "_settle"
        case "call":
            from floodgate.actors.sessions import BotSessions

            return BotSessions, "call"
        case "admit" | "settle":
            return BatchedAdmission, what
        case "release" | "record" | "count":
            from floodgate.producer.campaigns.storage import store

            return (store, "count_states") if what == "count" else (store.CampaignStore, _STORED[what])
        case _:
            raise ValueError(f"no such point: {what}")
