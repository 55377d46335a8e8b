"""Time for a job as the backlog grows: one worker on SQLite, no limits, a Bot API that answers at once.

For each backlog that many jobs are queued, to as many users; then a worker starts. Up to a hundred thousand jobs are
worked off and timed, so a backlog of a million is timed by its first hundred thousand. Small backlogs are repeated on
the same store until ten thousand jobs have gone, and the middle round counts.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from benchmarks.stage import pace, report, servers
from benchmarks.stage.pipeline import Pipeline, pipeline

MOST_TIMED: Final = 100_000
LEAST_TIMED: Final = 10_000
AT_MOST_SECONDS: Final = 900.0
FLAT_WITHIN: Final = 0.15
MEGABYTE: Final = 1_000_000
FIRST: Final = (0.05, 0.25)
LAST: Final = (0.75, 0.95)


@dataclass(frozen=True, slots=True)
class Row:
    """One backlog. ``first`` and ``last`` are the time for a job in its first and last fifth."""

    backlog: int
    timed: int
    ms_per_job: float
    ms_first: float
    ms_last: float
    cpu_ms_per_job: float
    enqueue_per_second: float
    store_mb: float
    worker_mb: float


def measure(rabbitmq_url: str, backlog: int, least_timed: int = LEAST_TIMED) -> Row:
    """Queue, work off, time."""
    with tempfile.TemporaryDirectory(prefix="floodgate-bench-") as folder:
        home = Path(folder)
        state = f"sqlite:///{home}/state.db"
        with (
            servers.instant_telegram(home / "fake.log") as fake,
            pipeline(home, rabbitmq_url, fake.url, state, limits={"enabled": False}) as ours,
        ):
            timed = min(backlog, MOST_TIMED)
            rounds = [_round(ours, fake, number * backlog, backlog) for number in range(max(1, least_timed // backlog))]
            paces = [each.samples for each in rounds]
            return Row(
                backlog,
                timed * len(rounds),
                1000 / statistics.median(map(pace.rate, paces)),
                1000 / statistics.median(pace.rate(samples, FIRST) for samples in paces),
                1000 / statistics.median(pace.rate(samples, LAST) for samples in paces),
                statistics.median(each.cpu_seconds for each in rounds) / timed * 1000,
                backlog / rounds[0].enqueue_seconds,
                sum(file.stat().st_size for file in home.glob("state.db*")) / MEGABYTE,
                rounds[-1].worker_bytes / MEGABYTE,
            )


@dataclass(frozen=True, slots=True)
class _Round:
    samples: list[pace.Sample]
    enqueue_seconds: float
    cpu_seconds: float
    worker_bytes: int


def _round(ours: Pipeline, fake: servers.Fake, first: int, backlog: int) -> _Round:
    """Queue a backlog while no worker runs, then work it off by a fresh one."""
    began = time.monotonic()
    ours.enqueue(first + 1, backlog)
    enqueue_seconds = time.monotonic() - began
    ours.start_workers(1)
    worker = ours.workers[0]
    before = worker.cpu_seconds()
    samples = pace.watch(fake.control, first + min(backlog, MOST_TIMED), AT_MOST_SECONDS)
    found = _Round(samples, enqueue_seconds, worker.cpu_seconds() - before, worker.resident_bytes())
    ours.stop_workers()
    return found


def main(arguments: Sequence[str]) -> int:
    """Measure; 0 when the time for a job is flat."""
    options = _parser().parse_args(arguments)
    began = time.monotonic()
    backlogs, least_timed = ([500, 2_000], 2_000) if options.quick else (options.backlogs, LEAST_TIMED)
    with servers.rabbitmq() as url:
        rows = [measure(url, backlog, least_timed) for backlog in backlogs]
    report.save("scale", map(asdict, rows))
    report.table(
        "time for a job as the backlog grows",
        ["backlog", "timed", "ms a job", "first fifth", "last fifth", "CPU ms", "enqueued/s", "store MB", "worker MB"],
        [list(asdict(row).values()) for row in rows],
    )
    times = [row.ms_per_job for row in rows]
    spread = max(times) / min(times) - 1
    print(f"{spread:.0%} between the fastest and the slowest (aim {FLAT_WITHIN:.0%}); ", end="", file=sys.stderr)
    print(f"{time.monotonic() - began:.0f} s in all", file=sys.stderr)
    return 0 if spread <= FLAT_WITHIN else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("benchmarks scale", description=__doc__)
    parser.add_argument(
        "--backlogs",
        type=int,
        nargs="+",
        default=[1_000, 10_000, 100_000, 1_000_000],
        metavar="JOBS",
        help="about 12 minutes in all (default: %(default)s)",
    )
    parser.add_argument("--quick", action="store_true", help="two small backlogs; for development")
    return parser
