"""The gateway: bursts of five libraries with and without it, what it adds to a call, and 2,000 callers at once.

The libraries are those of the tests (`scripts/setup --tests` installs them); one that is not there is left out.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp

from benchmarks.stage import servers
from benchmarks.stage.pipeline import TOKEN, Pipeline, pipeline
from benchmarks.stage.programs import ROOT, Program

PEERS: Final = Path(__file__).with_name("peers")
LIBRARIES: Final = ("burst_ptb.py", "burst_aiogram.py", "burst_telebot.py", "burst_grammy.cjs", "burst_telegraf.cjs")
CALLERS: Final = 2000
BURST_SECONDS: Final = 240
LATENCY_MS: Final = (40, 80)  # of the fake in the bursts, as Telegram's


@contextmanager
def gateway(ours: Pipeline, name: str, **settings: str) -> Iterator[tuple[str, Program]]:
    """A gateway before a pipeline: its URL and its process."""
    own = {f"FLOODGATE_GATEWAY__{key.upper()}": value for key, value in settings.items()}
    env = {**ours.env, "FLOODGATE_GATEWAY__PORT": "0", "FLOODGATE_SPOOL_URL": str(ours.home / "spool"), **own}
    program = Program(["-m", "floodgate", "gateway"], env, ours.home / f"{name}.log", "startup complete").start()
    try:
        program.ready_line()
        ready = next(line for line in program.log().splitlines() if "ready at http" in line)
        yield "http" + ready.rpartition("http")[2], program
    finally:
        program.stop()


def bursts(home: Path, rabbitmq: str, count: int) -> None:
    """Each library's burst, straight to the strict fake and through the gateway."""
    print(f"\n{count} messages to {count} chats at once; the fake is strict")
    print(f"{'library':22} {'way':9} {'seconds':>8} {'sent':>6} {'failed':>7} {'429s':>6}")
    for library in LIBRARIES:
        command = _command(library)
        if command is None:
            print(f"{library:22} is not installed here: scripts/setup --tests")
            continue
        with servers.fake_telegram(home / f"{library}-straight.log", LATENCY_MS) as fake:
            _burst(library, "straight", command, fake.url, fake, count)
        with (
            servers.fake_telegram(home / f"{library}-gateway.log", LATENCY_MS) as fake,
            pipeline(home, rabbitmq, fake.url, f"sqlite:///{home}/{library}.db") as ours,
            gateway(ours, f"{library}-gateway-process", wait_seconds="120") as (url, _),
        ):
            _vouch(ours)
            ours.start_workers(1)
            _burst(library, "gateway", command, url, fake, count)


def _burst(library: str, way: str, command: list[str], url: str, fake: servers.Fake, count: int) -> None:
    started = time.monotonic()
    modules = os.environ.get("FLOODGATE_CLIENTS_NODE", str(ROOT / ".cache" / "clients")) + "/node_modules"
    env = {**os.environ, "PYTHONPATH": "", "NODE_PATH": modules}
    done = subprocess.run(
        [*command, url, TOKEN, str(count)], capture_output=True, text=True, env=env, timeout=BURST_SECONDS, check=False
    )
    seconds = time.monotonic() - started
    if done.returncode:
        print(f"{library:22} {way:9} ended with {done.returncode}: {done.stderr.strip().splitlines()[-1:]}")
        return
    failed, totals = len(json.loads(done.stdout)), fake.control.summary()
    print(f"{library:22} {way:9} {seconds:8.1f} {totals.acted:6} {failed:7} {totals.answers_429:6}", flush=True)


def _command(library: str) -> list[str] | None:
    if library.endswith(".cjs"):
        modules = Path(os.environ.get("FLOODGATE_CLIENTS_NODE", ROOT / ".cache" / "clients")) / "node_modules"
        return ["node", str(PEERS / library)] if shutil.which("node") and modules.exists() else None
    python = Path(os.environ.get("FLOODGATE_CLIENTS_VENV", ROOT / ".venv-clients")) / "bin" / "python"
    return [str(python), str(PEERS / library)] if python.exists() else None


def overhead(home: Path, rabbitmq: str, seconds: float) -> None:
    """What a call costs through the gateway and straight, with all limits off."""
    print("\nlimits off, the fake answers at once: milliseconds a call")
    print(f"{'way':10} {'load':16} {'calls/s':>9} {'p50':>8} {'p99':>8}")
    off = {"limits": {"enabled": False}}
    with (
        servers.fake_telegram(home / "overhead.log", limits=False) as fake,
        pipeline(home, rabbitmq, fake.url, f"sqlite:///{home}/overhead.db", **off) as ours,
        gateway(ours, "overhead-gateway") as (url, process),
    ):
        ours.start_workers(1)
        for way, root in (("straight", fake.url), ("gateway", url)):
            asyncio.run(_measure(way, root, "30/s", seconds, rate=30))
            began = process.cpu_seconds()
            calls = asyncio.run(_measure(way, root, "64 at a time", seconds, callers=64))
            if way == "gateway":
                milliseconds = (process.cpu_seconds() - began) / calls * 1e3
                print(f"{'':10} {'the gateway took':16} {milliseconds:9.2f} ms CPU a call")


async def _measure(way: str, root: str, load: str, seconds: float, rate: float = 0, callers: int = 0) -> int:
    latencies: list[float] = []
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        for chat in range(16):
            await _call(session, root, 1 + chat, [])  # connections and queues are there
        started = time.monotonic()
        if rate:
            tasks = []
            for number in range(int(seconds * rate)):
                await asyncio.sleep(max(0.0, started + number / rate - time.monotonic()))
                tasks.append(asyncio.create_task(_call(session, root, 100 + number, latencies)))
            await asyncio.gather(*tasks)
        else:
            await asyncio.gather(*(_caller(session, root, n, started + seconds, latencies) for n in range(callers)))
        took = time.monotonic() - started
    ordered = sorted(latencies)
    p50, p99 = ordered[len(ordered) // 2] * 1e3, ordered[int(len(ordered) * 0.99)] * 1e3
    print(f"{way:10} {load:16} {len(ordered) / took:9.0f} {p50:8.1f} {p99:8.1f}", flush=True)
    return len(ordered)


async def _caller(session: aiohttp.ClientSession, root: str, number: int, until: float, latencies: list[float]) -> None:
    chat = 1_000_000 * (number + 1)
    while time.monotonic() < until:
        chat += 1
        await _call(session, root, chat, latencies)


async def _call(session: aiohttp.ClientSession, root: str, chat: int, latencies: list[float]) -> Any:
    started = time.monotonic()
    async with session.post(f"{root}/bot{TOKEN}/sendMessage", json={"chat_id": chat, "text": "x"}) as response:
        answer = await response.json()
    if not answer["ok"]:
        raise RuntimeError(answer["description"])
    latencies.append(time.monotonic() - started)
    return answer


def crowd(home: Path, rabbitmq: str) -> None:
    """Memory of a gateway with 2,000 callers that wait. No worker runs."""
    with (
        servers.fake_telegram(home / "crowd.log") as fake,
        pipeline(home, rabbitmq, fake.url, f"sqlite:///{home}/crowd.db") as ours,
        gateway(ours, "crowd-gateway", wait_seconds="120") as (url, process),
    ):
        before = process.resident_bytes()
        waiting = asyncio.run(_wait_together(url))
        more = process.resident_bytes() - before
        print(f"\n{waiting} callers wait at once: {more / 2**20:.0f} MB more, {more / waiting / 1024:.0f} KB a caller")


async def _wait_together(url: str) -> int:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        tasks = [asyncio.create_task(_call(session, url, 1 + n, [])) for n in range(CALLERS)]
        waiting, deadline = 0, time.monotonic() + 60
        while waiting < CALLERS and time.monotonic() < deadline:
            await asyncio.sleep(0.2)
            async with session.get(f"{url}/ready") as response:
                waiting = (await response.json())["waiting"]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return waiting


def _vouch(ours: Pipeline) -> None:
    """The bot was made up a moment ago, so it may start at full rate."""
    from broker.admission.stores import open_store

    store = open_store(ours.settings)
    store.vouch_idle(ours.bot)
    store.close()


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks gateway", description=__doc__)
    parser.add_argument("--count", type=int, default=600, help="messages of a burst")
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement of calls")
    options = parser.parse_args(arguments)
    with ExitStack() as stack:
        rabbitmq = stack.enter_context(servers.rabbitmq())
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="floodgate-bench-")))
        overhead(home, rabbitmq, options.seconds)
        crowd(home, rabbitmq)
        bursts(home, rabbitmq, options.count)
    return 0
