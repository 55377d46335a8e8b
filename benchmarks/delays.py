"""Delayed messages: how late they are, and what they cost a worker's memory; the ladder beside Dramatiq's
``.DQ`` queues.

The same actor and the same worker on both brokers, one after the other, each in a process of its own on a
private node. Lateness counts from when a message was due, rounding up to the ladder's unit of 125 ms
included.

``--rate`` instead puts a constant rate through the ladder alone, with RabbitMQ's default number of messages that a
level hands on before the first is confirmed, and with ours; then a tenth of the rate beside another bot, whose jobs are
all due at one moment, or whose queues are full, or who is in a vhost of its own.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from dataclasses import asdict, astuple
from functools import partial
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from benchmarks.peers.delayers import BROKERS
from benchmarks.stage import report
from benchmarks.stage.ladder_load import PREFETCH, Lateness, Load
from benchmarks.stage.ladder_load import run as run_load
from benchmarks.stage.programs import ROOT
from rabbitmq_node.node import Node

RUN_SECONDS: Final = 1200.0
LOAD_SECONDS: Final = 30.0
LOAD_LONGEST_SECONDS: Final = 10.0  # of the delays
DEFAULT_PREFETCH: Final = 32


def main(arguments: list[str]) -> int:
    options = _parser().parse_args(arguments)
    if options.quick:
        options.count, options.longest, options.delayed = 60, 5.0, 2_000
    console = Console(stderr=True)
    if options.rate:
        return _ladder_loads(console, options)
    results: dict[str, list[dict[str, Any]]] = {"lateness": [], "memory": []}
    for name in BROKERS:
        for measure, rest in (
            ("lateness", [str(options.count), str(options.longest)]),
            ("memory", [str(options.delayed)]),
        ):
            # A fresh node each, so that no message of one measurement is due in another.
            with Node(options.rabbitmq, conf={"default_queue_type": "quorum"}) as node:
                console.print(f"{name}: {measure} …")
                results[measure].append(run(name, measure, node.url, rest))
    path = report.save(
        "delays",
        ({"measure": measure, **each} for measure, found in results.items() for each in found),
        longest_seconds=options.longest,
    )
    _show(console, results)
    console.print(f"written to {path}")
    return 0


def _ladder_loads(console: Console, options: argparse.Namespace) -> int:
    seconds, longest = LOAD_SECONDS, LOAD_LONGEST_SECONDS
    beside = partial(Load, rate=options.rate // 10, seconds=seconds, longest=longest)
    loads = [
        Load("steady", options.rate, seconds, longest),
        beside("beside a burst", burst=20 * options.rate),
        beside("beside a burst in another vhost", burst=20 * options.rate, apart=True),
        beside("beside full queues", burst=options.rate // 2, full=True),
    ]
    results: list[Lateness] = []
    for load in loads:
        for prefetch in (DEFAULT_PREFETCH, our_prefetch()):
            console.print(f"{load.name}, prefetch {prefetch} …")
            results += run_load(load, prefetch, options.rabbitmq)
    path = report.save("delay-ladder", map(asdict, results), rate=options.rate)
    table = Table("load", "prefetch", "bot", "sent", "came", "came/s", "p50 ms", "p99 ms", "max ms")
    for each in results:
        *texts, came_per_second, p50, p99, most = astuple(each)
        table.add_row(*map(str, texts), *(f"{number:,.0f}" for number in (came_per_second, p50, p99, most)))
    console.print(table, f"written to {path}")
    return 0


def our_prefetch() -> int:
    """What our ``advanced.config`` sets."""
    found = re.search(rf"{{{PREFETCH}, (\d+)}}", (ROOT / "rabbitmq" / "advanced.config").read_text())
    assert found is not None
    return int(found[1])


def run(name: str, measure: str, url: str, rest: list[str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.peers.delayers", name, measure, url, *rest]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=RUN_SECONDS, check=False)
    if done.returncode:
        raise RuntimeError(f"{name} {measure} failed:\n{done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _show(console: Console, results: dict[str, list[dict[str, Any]]]) -> None:
    late = Table("lateness", "came", "p50 ms", "p99 ms", "max ms")
    for each in results["lateness"]:
        late.add_row(
            each["broker"], str(each["came"]), *(f"{each[key]:,.0f}" for key in ("p50_ms", "p99_ms", "max_ms"))
        )
    memory = Table("worker memory", "delayed messages", "before MiB", "after MiB", "growth MiB")
    for each in results["memory"]:
        before, after = each["before_bytes"] / 2**20, each["after_bytes"] / 2**20
        memory.add_row(each["broker"], f"{each['count']:,}", f"{before:.1f}", f"{after:.1f}", f"{after - before:.1f}")
    console.print(late, memory)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks delays", description=__doc__)
    parser.add_argument("--count", type=int, default=600, help="delayed messages whose lateness is taken")
    parser.add_argument("--longest", type=float, default=60.0, help="the longest delay in seconds; the shortest is 0.1")
    parser.add_argument("--delayed", type=int, default=100_000, help="messages an hour ahead, for memory")
    parser.add_argument("--rate", type=int, help="jobs a second through the ladder alone, such as 1000; 6 minutes")
    parser.add_argument("--quick", action="store_true", help="few messages; for development")
    parser.add_argument("--rabbitmq", choices=("4.0", "4.3"))
    return parser
