"""Jobs a second through one worker process without limits, beside a stock Dramatiq worker that sends through PTB.

The Bot API answers at once. Both get the same messages, queued before they start; rounds alternate, so that whatever
else the machine does is shared. Rates are of the middle four fifths of a round.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from benchmarks.stage import pace, report, servers
from benchmarks.stage.pipeline import TOKEN, pipeline
from benchmarks.stage.programs import Program

AT_MOST_SECONDS: Final = 300.0
AIM_PER_SECOND: Final = 800
AIM_TIMES_STOCK: Final = 2.0


@dataclass(frozen=True, slots=True)
class Round:
    """One contender's round. CPU is the worker's, its start left out."""

    contender: str
    per_second: float
    cpu_ms_per_job: float


def floodgate(rabbitmq_url: str, jobs: int) -> Round:
    """One ``floodgate worker`` on SQLite, with the default settings but for the limits."""
    with tempfile.TemporaryDirectory(prefix="floodgate-bench-") as folder:
        home = Path(folder)
        with (
            servers.fake_telegram(home / "fake.log", limits=False) as fake,
            pipeline(home, rabbitmq_url, fake.url, f"sqlite:///{home}/state.db", limits={"enabled": False}) as ours,
        ):
            client = ours.client
            client.enqueue_many(
                client.job("sendMessage", chat_id=chat, text=f"message {chat}", priority="bulk")
                for chat in range(1, jobs + 1)
            )
            ours.start_workers(1)
            return _round("floodgate", fake, ours.workers[0], jobs)


def stock(rabbitmq_url: str, jobs: int) -> Round:
    """``dramatiq`` with one process and its default threads, its RabbitMQ broker, PTB's default HTTP stack."""
    with tempfile.TemporaryDirectory(prefix="floodgate-bench-") as folder:
        home = Path(folder)
        with servers.fake_telegram(home / "fake.log", limits=False) as fake:
            env = {
                "BENCH_RABBITMQ_URL": rabbitmq_url,
                "BENCH_API_URL": fake.url,
                "BENCH_TOKEN": TOKEN,
                "BENCH_QUEUE": f"stock-{uuid.uuid4().hex[:6]}",
            }
            fill = Program(
                ["-m", "benchmarks.peers.fill", "benchmarks.peers.stock_worker", str(jobs)],
                env,
                home / "fill.log",
                "filled",
            )
            fill.start().ready_line()
            command = ["-m", "dramatiq", "benchmarks.peers.stock_worker", "-p", "1", "-Q", env["BENCH_QUEUE"]]
            worker = Program(command, env, home / "worker.log", "ready for action").start()
            try:
                worker.ready_line()
                return _round("stock dramatiq + ptb", fake, worker, jobs)
            finally:
                worker.stop()


def _round(name: str, fake: servers.Fake, worker: Program, jobs: int) -> Round:
    before = worker.cpu_seconds()
    samples = pace.watch(fake.control, jobs, AT_MOST_SECONDS)
    return Round(name, pace.rate(samples), (worker.cpu_seconds() - before) / jobs * 1000)


def main(arguments: Sequence[str]) -> int:
    """Measure; 0 when both aims are met."""
    options = _parser().parse_args(arguments)
    contenders: list[Callable[[str, int], Round]] = [floodgate, stock]
    with servers.rabbitmq() as url:
        rounds = [_told(play(url, options.jobs)) for _ in range(options.rounds) for play in contenders]
    report.save("throughput", map(asdict, rounds))
    names = list(dict.fromkeys(each.contender for each in rounds))
    ours, theirs = (_median([each.per_second for each in rounds if each.contender == name]) for name in names)
    report.table(
        f"{options.jobs} jobs a round, one worker process, no limits, Bot API answers at once",
        ["", "jobs/s", "rounds", "CPU ms a job"],
        [
            [
                name,
                _median([each.per_second for each in rounds if each.contender == name]),
                " ".join(f"{each.per_second:.0f}" for each in rounds if each.contender == name),
                _median([each.cpu_ms_per_job for each in rounds if each.contender == name]),
            ]
            for name in names
        ],
    )
    print(
        f"{ours / theirs:.1f} times stock (aim {AIM_TIMES_STOCK:g}), {ours:.0f}/s (aim {AIM_PER_SECOND})",
        file=sys.stderr,
    )
    return 0 if ours >= AIM_PER_SECOND and ours >= AIM_TIMES_STOCK * theirs else 1


def _told(found: Round) -> Round:
    print(f"{found.contender}: {found.per_second:.0f}/s", file=sys.stderr, flush=True)
    return found


def _median(values: Sequence[float]) -> float:
    return statistics.median(values)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("benchmarks throughput", description=__doc__)
    parser.add_argument("--jobs", type=int, default=6000, help="a round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of each (default: %(default)s)")
    return parser
