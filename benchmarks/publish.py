"""Jobs per second into RabbitMQ, confirmed and persistent: ours beside Dramatiq, raw pika, aio-pika and
Celery.

All on one private node whose queues are quorum queues, with bodies of one size, in rounds, so that a busy
moment of the machine hits everybody; the median counts. Ours includes what a call does for its caller:
validation, the envelope, the queue's choice.

``--memory N`` instead streams N jobs through ``enqueue_many`` and compares memory after 10,000 and at the
end.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass
from typing import Any, Final

import pika
from rich.console import Console
from rich.table import Table

from benchmarks.peers.publishers import CONTENDERS, NOT_INSTALLED
from benchmarks.stage import report
from benchmarks.stage.programs import ROOT
from rabbitmq_node.node import Node

RUN_SECONDS: Final = 900.0
OUR_QUEUE: Final = "send.default.bulk.00"
RAW_QUEUE: Final = "bench.raw"
YARDSTICK_STOCK: Final = "dramatiq, confirmed"
YARDSTICK_RAW: Final = "pika pipelined, raw"


@dataclass(frozen=True, slots=True)
class Score:
    """The rates of one contender, in jobs per second."""

    name: str
    rates: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.rates)


def main(arguments: list[str]) -> int:
    options = _parser().parse_args(arguments)
    if options.quick:
        options.count, options.rounds = 3_000, 1
    console = Console(stderr=True)
    with Node(options.rabbitmq, conf={"default_queue_type": "quorum"}) as node:
        _declare(node.url)
        if options.memory:
            result = run("memory", node.url, options.memory, options.body)
            assert result is not None
            _show_memory(console, result)
            report.save("publish-memory", [result])
            return 0
        scores = compare(node.url, options, console)
    path = report.save("publish", map(asdict, scores), body_bytes=options.body, rabbitmq=node.version)
    _show(console, scores)
    console.print(f"written to {path}")
    return 0


def compare(url: str, options: argparse.Namespace, console: Console) -> list[Score]:
    names = [name for name in CONTENDERS if not options.only or any(part in name for part in options.only)]
    rates: dict[str, list[float]] = {name: [] for name in names}
    for round_number in range(options.rounds):
        for name in names:
            streams = "many" in name or "pipelined" in name or "unconfirmed" in name
            result = run(name, url, options.count if streams else options.count // 15, options.body)
            if result is None:
                continue
            rates[name].append(result["count"] / result["seconds"])
            console.print(f"round {round_number + 1}: {name}: {rates[name][-1]:,.0f}/s")
    return [Score(name, tuple(found)) for name, found in rates.items() if found]


def run(name: str, url: str, count: int, size: int) -> dict[str, Any] | None:
    """One contender in a process of its own, on an empty queue. None, and a sentence: it is not installed."""
    queue = RAW_QUEUE if name in (YARDSTICK_RAW, "aio-pika pipelined") else "bench." + name.partition(",")[0]
    command = [sys.executable, "-m", "benchmarks.peers.publishers", name, url, queue, str(count), str(size)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=RUN_SECONDS, check=False)
    if done.returncode == NOT_INSTALLED:
        print(f"{name} is left out: {done.stderr.strip()}", file=sys.stderr)
        return None
    if done.returncode:
        raise RuntimeError(f"{name} failed:\n{done.stderr[-2000:]}")
    _purge(url, queue, OUR_QUEUE)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _declare(url: str) -> None:
    """Declare the queue of those who publish to a bare one; the others declare theirs."""
    connection = pika.BlockingConnection(pika.URLParameters(url))
    connection.channel().queue_declare(RAW_QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
    connection.close()


def _purge(url: str, *queues: str) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(url))
    for queue in queues:
        channel = connection.channel()
        try:
            channel.queue_purge(queue)
        except pika.exceptions.ChannelClosedByBroker as error:
            if error.reply_code != 404:
                raise
    connection.close()


def _show(console: Console, scores: list[Score]) -> None:
    medians = {score.name: score.median for score in scores}
    table = Table("", "jobs/s", "× dramatiq confirmed", "× pika pipelined", title="Published, by medians")
    for score in scores:
        ratios = [medians.get(yardstick) for yardstick in (YARDSTICK_STOCK, YARDSTICK_RAW)]
        cells = [f"{score.median / ratio:.2f}" if ratio else "" for ratio in ratios]
        table.add_row(score.name, f"{score.median:,.0f}", *cells)
    console.print(table)


def _show_memory(console: Console, result: dict[str, Any]) -> None:
    before, after = result["at_10_000"] / 2**20, result["at_end"] / 2**20
    console.print(f"{result['count']:,} jobs: {before:.1f} MiB after 10,000, {after:.1f} MiB at the end")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks publish", description=__doc__)
    parser.add_argument("--count", type=int, default=30_000, help="jobs of a pipelined contender; others a fifteenth")
    parser.add_argument("--body", type=int, default=500, help="bytes of a message's body")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", help="contenders whose names contain one of these")
    parser.add_argument("--memory", type=int, metavar="N", help="measure memory over N jobs instead")
    parser.add_argument("--quick", action="store_true", help="one short round; for development")
    parser.add_argument("--rabbitmq", choices=("4.0", "4.3"))
    return parser
