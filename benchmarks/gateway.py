"""The gateway: what it adds to a call beside the former one, 2,000 callers at once, bursts of five libraries.

The libraries are those of the tests (`scripts/setup --tests` installs them); one that is not there is left out.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final, TypeVar

from benchmarks.stage import report, servers
from benchmarks.stage.callers import Callers, calling
from benchmarks.stage.drain import drain
from benchmarks.stage.editions import CURRENT, Edition, editions
from benchmarks.stage.figures import percentile
from benchmarks.stage.pipeline import TOKEN, Pipeline, pipeline
from benchmarks.stage.programs import NODE_MODULES, ROOT, Program
from floodgate.broker.process.event_loop import new_event_loop

T = TypeVar("T")

PEERS: Final = Path(__file__).with_name("peers")
LIBRARIES: Final = ("burst_ptb.py", "burst_aiogram.py", "burst_telebot.py", "burst_grammy.cjs", "burst_telegraf.cjs")
CALLERS: Final = 2000
BURST_SECONDS: Final = 240
LATENCY_MS: Final = (40, 80)  # of the fake in the bursts, as Telegram's
CALM_PER_SECOND: Final = 30
CALLERS_AT_A_TIME: Final = 64
DRAIN_SECONDS: Final = 120.0
FIRST_OF_BACKLOG: Final = 900_000_000  # chats that no caller writes to
MOST_ADDED_MS: Final = 8.0
LEAST_OF_WORKER: Final = 0.7


@contextmanager
def gateway(ours: Pipeline, name: str, **settings: str) -> Iterator[tuple[str, Program]]:
    """A gateway of a pipeline's edition before it: its URL and its process."""
    own = {f"FLOODGATE_GATEWAY__{key.upper()}": value for key, value in settings.items()}
    env = {**ours.env, "FLOODGATE_GATEWAY__PORT": "0", "FLOODGATE_SPOOL_URL": str(ours.home / "spool"), **own}
    program = ours.edition.gateway(env, ours.home / f"{name}.log").start()
    try:
        yield "http" + program.ready_line().rpartition("http")[2], program
    finally:
        program.stop()


@dataclass(frozen=True, slots=True)
class Burst:
    """One library's messages, all at once, one way. ``fault`` is its last line when the program itself failed."""

    contender: str
    way: str
    seconds: float
    sent: int
    failed: int
    answers_429: int
    fault: str = ""


def bursts(home: Path, rabbitmq: str, count: int) -> Iterator[Burst]:
    """Each library's burst, straight to the strict fake and through the gateway."""
    for library in LIBRARIES:
        command = _command(library)
        if command is None:
            print(f"{library} is not installed here: scripts/setup --tests", file=sys.stderr)
            continue
        with servers.fake_telegram(home / f"{library}-straight.log", LATENCY_MS) as fake:
            yield _burst(library, "straight", command, fake.url, fake, count)
        with (
            servers.fake_telegram(home / f"{library}-gateway.log", LATENCY_MS) as fake,
            pipeline(home, rabbitmq, fake.url, f"sqlite:///{home}/{library}.db") as ours,
            gateway(ours, f"{library}-gateway-process", wait_seconds="120") as (url, _),
        ):
            _vouch(ours)
            ours.start_workers(1)
            yield _burst(library, "gateway", command, url, fake, count)


def _burst(library: str, way: str, command: list[str], url: str, fake: servers.Fake, count: int) -> Burst:
    started = time.monotonic()
    env = {**os.environ, "PYTHONPATH": "", "NODE_PATH": str(NODE_MODULES)}
    done = subprocess.run(
        [*command, url, TOKEN, str(count)], capture_output=True, text=True, env=env, timeout=BURST_SECONDS, check=False
    )
    seconds, totals = time.monotonic() - started, fake.control.summary()
    fault = (done.stderr.strip().splitlines() or ["no reason given"])[-1] if done.returncode else ""
    failed = count if fault else len(json.loads(done.stdout))
    return Burst(library, way, seconds, totals.acted, failed, totals.answers_429, fault)


def _command(library: str) -> list[str] | None:
    if library.endswith(".cjs"):
        return ["node", str(PEERS / library)] if shutil.which("node") and NODE_MODULES.exists() else None
    python = Path(os.environ.get("FLOODGATE_CLIENTS_VENV", ROOT / ".venv-clients")) / "bin" / "python"
    return [str(python), str(PEERS / library)] if python.exists() else None


@dataclass(frozen=True, slots=True)
class Calls:
    """One way's round. Milliseconds are of a call at 30 a second; the rates are of 64 callers at a time."""

    contender: str
    p50_ms: float
    p99_ms: float
    calls_per_second: float
    busy_p50_ms: float
    gateway_cpu_ms: float
    worker_per_second: float
    """The rate of the same worker with its queue full and no gateway; 0 for the straight way."""
    load: float


def straight(home: Path, seconds: float) -> Calls:
    """The same calls without a gateway: what the caller and the Bot API take by themselves."""
    with servers.instant_telegram(home / "straight.log") as fake:
        calm, busy = _both_loads(fake.url, seconds)
    return Calls("straight", calm.p50, calm.p99, busy.per_second, busy.p50, 0.0, 0.0, os.getloadavg()[0])


def through(edition: Edition, home: Path, rabbitmq: str, seconds: float, jobs: int) -> Calls:
    """Calls through a gateway and one worker, limits off; then the worker's own rate."""
    name, state = edition.name, f"sqlite:///{home}/{edition.name}.db"
    with (
        servers.instant_telegram(home / f"{name}.log") as fake,
        pipeline(home, rabbitmq, fake.url, state, edition, limits={"enabled": False}) as ours,
    ):
        ours.start_workers(1)
        with gateway(ours, f"{name}-gateway") as (url, process):
            calm = _run(_at_a_rate(url, CALM_PER_SECOND, seconds))
            began = process.cpu_seconds()
            busy = _run(_at_a_time(url, CALLERS_AT_A_TIME, seconds))
            cpu_ms = (process.cpu_seconds() - began) / busy.count * 1e3
        alone = _worker_rate(ours, fake, jobs)
    return Calls(name, calm.p50, calm.p99, busy.per_second, busy.p50, cpu_ms, alone, os.getloadavg()[0])


def _worker_rate(ours: Pipeline, fake: servers.Fake, jobs: int) -> float:
    ours.stop_workers()
    already = fake.control.stats().acted
    ours.enqueue(FIRST_OF_BACKLOG, jobs)
    ours.start_workers(1)
    return drain(ours.edition.name, fake, ours.workers[0], already + jobs, DRAIN_SECONDS).per_second


@dataclass(frozen=True, slots=True)
class Latencies:
    """Of the calls of one load, in milliseconds."""

    count: int
    per_second: float
    p50: float
    p99: float

    @classmethod
    def of(cls, seconds: Sequence[float], took_seconds: float) -> Latencies:
        p50, p99 = (percentile(seconds, part) * 1e3 for part in (0.5, 0.99))
        return cls(len(seconds), len(seconds) / took_seconds, p50, p99)


def _both_loads(root: str, seconds: float) -> tuple[Latencies, Latencies]:
    calm = _run(_at_a_rate(root, CALM_PER_SECOND, seconds))
    return calm, _run(_at_a_time(root, CALLERS_AT_A_TIME, seconds))


async def _at_a_rate(root: str, rate: float, seconds: float) -> Latencies:
    """Calls at even distances, whether or not the ones before are answered."""
    latencies: list[float] = []
    async with calling(root) as callers, asyncio.TaskGroup() as calls:
        started = time.monotonic()
        for number in range(int(seconds * rate)):
            await asyncio.sleep(max(0.0, started + number / rate - time.monotonic()))
            calls.create_task(_call(callers, 100 + number, latencies))
    return Latencies.of(latencies, time.monotonic() - started)


async def _at_a_time(root: str, count: int, seconds: float) -> Latencies:
    """So many callers, each with one call after the other."""
    latencies: list[float] = []
    async with calling(root) as callers:
        started = time.monotonic()
        await asyncio.gather(*(_caller(callers, n, started + seconds, latencies) for n in range(count)))
    return Latencies.of(latencies, time.monotonic() - started)


async def _caller(callers: Callers, number: int, until: float, latencies: list[float]) -> None:
    chat = 1_000_000 * (number + 1)
    while time.monotonic() < until:
        chat += 1
        await _call(callers, chat, latencies)


async def _call(callers: Callers, chat: int, latencies: list[float]) -> None:
    started = time.monotonic()
    await callers.send(chat)
    latencies.append(time.monotonic() - started)


def _run(calls: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(calls)


@dataclass(frozen=True, slots=True)
class Waiting:
    """Memory of a gateway with so many callers that wait, and how much more that is than with none."""

    contender: str
    callers: int
    resident_bytes: int
    more_bytes: int


def waiting(edition: Edition, home: Path, rabbitmq: str) -> Waiting:
    """2,000 callers wait at once, and no worker runs."""
    name = f"{edition.name}-waiting"
    with (
        servers.instant_telegram(home / f"{name}.log") as fake,
        pipeline(home, rabbitmq, fake.url, f"sqlite:///{home}/{name}.db", edition) as ours,
        gateway(ours, f"{name}-gateway", wait_seconds="120") as (url, process),
    ):
        before = process.resident_bytes()
        callers = _run(_wait_together(url))
        after = process.resident_bytes()
    return Waiting(edition.name, callers, after, after - before)


async def _wait_together(url: str) -> int:
    callers = Callers(url)
    tasks = [asyncio.create_task(callers.send(1 + n)) for n in range(CALLERS)]
    waiting, deadline = 0, time.monotonic() + 60
    while waiting < CALLERS and time.monotonic() < deadline:
        await asyncio.sleep(0.2)
        waiting = (await callers.get("/ready"))["waiting"]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    callers.close()
    return waiting


def _vouch(ours: Pipeline) -> None:
    """The bot was made up a moment ago, so it may start at full rate."""
    from floodgate.broker.state.stores import open_store

    store = open_store(ours.settings)
    store.vouch_idle(ours.bot)
    store.close()


PARTS: Final = ("calls", "waiting", "bursts")


def main(arguments: Sequence[str]) -> int:
    """Measure; 0 when the calls are as quick and as many as they must be."""
    options = _parser().parse_args(arguments)
    count, seconds, rounds, jobs = (
        (60, 2.0, 1, 1_000) if options.quick else (options.count, options.seconds, options.rounds, 5_000)
    )
    found: dict[str, list[Any]] = {part: [] for part in PARTS}
    with servers.rabbitmq() as rabbitmq, tempfile.TemporaryDirectory(prefix="floodgate-bench-") as folder:
        home, present = Path(folder), editions()
        if "calls" in options.only:
            for number in range(rounds):
                turn = home / f"round-{number}"
                turn.mkdir()
                found["calls"].append(straight(turn, seconds))
                found["calls"] += [through(edition, turn, rabbitmq, seconds, jobs) for edition in present]
        if "waiting" in options.only:
            found["waiting"] = [waiting(edition, home, rabbitmq) for edition in present]
        if "bursts" in options.only:
            found["bursts"] = list(bursts(home, rabbitmq, count))
    path = report.save("gateway", ({"part": part, **asdict(each)} for part in PARTS for each in found[part]))
    _show(found, count)
    print(f"written to {path}", file=sys.stderr)
    return 0 if met(medians(found["calls"])) else 1


def medians(rounds: Sequence[Calls]) -> list[Calls]:
    """One for each way, every figure the median of its rounds."""
    found = []
    for name in report.names(rounds):
        of_one = [each for each in rounds if each.contender == name]
        figures = [field.name for field in fields(Calls) if field.name != "contender"]
        found.append(Calls(name, *(statistics.median(getattr(each, figure) for each in of_one) for figure in figures)))
    return found


def met(calls: Sequence[Calls]) -> bool:
    found = {each.contender: each for each in calls}
    if CURRENT.name not in found:
        return True
    ours = found[CURRENT.name]
    added = ours.p50_ms - found["straight"].p50_ms
    return added <= MOST_ADDED_MS and ours.calls_per_second >= LEAST_OF_WORKER * ours.worker_per_second


def _show(found: dict[str, list[Any]], count: int) -> None:
    if calls := medians(found["calls"]):
        report.table(
            f"Calls, limits off, a Bot API that answers at once; medians. Added p50 at most {MOST_ADDED_MS:g} ms, "
            f"calls at least {LEAST_OF_WORKER:g} of the worker's rate",
            [
                "",
                "30/s: p50 ms",
                "p99 ms",
                "added p50",
                "added p99",
                "64 at a time: calls/s",
                "p50 ms",
                "CPU ms a call",
                "worker alone/s",
                "part of it",
            ],
            [_row(each, bare=calls[0]) for each in calls],
        )
    if found["waiting"]:
        report.table(
            "Callers that wait at once, no worker",
            ["", "callers", "MB more", "kB a caller"],
            [
                [each.contender, each.callers, each.more_bytes / 1e6, each.more_bytes / max(1, each.callers) / 1e3]
                for each in found["waiting"]
            ],
        )
    if found["bursts"]:
        report.table(
            f"{count} messages to {count} chats at once; the fake is strict",
            ["", "way", "seconds", "sent", "failed", "answers 429", "fault"],
            [list(asdict(each).values()) for each in found["bursts"]],
        )


def _row(found: Calls, bare: Calls) -> list[object]:
    return [
        found.contender,
        found.p50_ms,
        found.p99_ms,
        found.p50_ms - bare.p50_ms,
        found.p99_ms - bare.p99_ms,
        found.calls_per_second,
        found.busy_p50_ms,
        found.gateway_cpu_ms,
        found.worker_per_second,
        found.calls_per_second / found.worker_per_second if found.worker_per_second else None,
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks gateway", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts of it (default: all)")
    parser.add_argument("--count", type=int, default=600, help="messages of a burst")
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement of calls")
    parser.add_argument("--rounds", type=int, default=3, help="of calls (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="one short round and small bursts; for development")
    return parser
