"""What metrics and traces cost a worker: its CPU a job with them, beside the same process without.

One worker process without limits, a Bot API that answers at once: whatever is observed weighs most here. The process is
observed in turns of a second (:mod:`benchmarks.stage.alternating_worker`), and each turn is compared with the turns
without anything before and after it. CPU is compared and not jobs a second, because a machine that is busy with other
things takes away time, but makes less work. The bound is met if the whole confidence interval is below it, and missed
if the whole is above it; otherwise there were too few rounds to tell.

Spans go to a collector that reads and drops them. Reports to the store, once a second, and a scrape every 15 s are
added as the part of a core that they take. Traces as they are by default, of the first :data:`MOST_PER_SECOND` jobs of
each second, are not a turn of their own: they are as large a part of the jobs as a worker sends that has a core to
itself, whatever this machine leaves to it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import statistics
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

from benchmarks.stage import report, servers
from benchmarks.stage.alternating_worker import METRICS, NOTHING, OBSERVATIONS, SAMPLED, UNSAMPLED, Turn
from benchmarks.stage.pipeline import Pipeline, pipeline
from benchmarks.stage.programs import Program
from floodgate.broker.process.spans import MOST_PER_SECOND

MOST_COST: Final = 0.03
DEFAULT: Final = "metrics and traces by default"
BOUNDED: Final = (METRICS.name, DEFAULT)
CONFIDENCE: Final = 0.95
FIRST_ROUNDS: Final = 2  # left out: the process is still warming up
# The queue holds so many jobs: those of some seconds.
AHEAD: Final = 10_000
BATCH: Final = 5_000
POLL_SECONDS: Final = 0.1
LONGEST_TURN_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Cost:
    """The CPU a job of one way of observing, as a multiple of that without any: the median over the rounds, and its
    confidence interval."""

    observed: str
    median: float
    low: float
    high: float

    @property
    def missed(self) -> bool | None:
        """Whether it costs more than it may; None if that cannot be told, or there is no bound."""
        if self.observed not in BOUNDED or self.low <= 1 + MOST_COST < self.high:
            return None
        return self.high > 1 + MOST_COST

    def __str__(self) -> str:
        found = f"{self.observed}: {self.median - 1:+.1%} CPU a job ({self.low - 1:+.1%} to {self.high - 1:+.1%})"
        if self.observed not in BOUNDED:
            return found
        verdict = {True: "more than", False: "within", None: "which does not tell whether it is within"}[self.missed]
        return f"{found}, {verdict} {MOST_COST:.0%}"


def costs(turns: Sequence[Turn]) -> list[Cost]:
    """Compare each turn with those without anything before and after it. The first rounds are left out, and turns in
    which the worker stood still."""
    rounds: defaultdict[int, dict[str, Turn]] = defaultdict(dict)
    ratios: defaultdict[int, dict[str, float]] = defaultdict(dict)
    for before, turn, after in zip(turns, turns[1:], turns[2:], strict=False):
        if turn.observed != NOTHING.name and turn.round >= FIRST_ROUNDS and before.jobs and turn.jobs and after.jobs:
            without = (before.cpu_ms_per_job + after.cpu_ms_per_job) / 2
            # A worker that sends as fast as it can uses one core, so a part of that is a part of its work.
            ratios[turn.round][turn.observed] = turn.cpu_ms_per_job / without + turn.periodic
            rounds[turn.round][turn.observed] = turn
    whole = [number for number, found in ratios.items() if len(found) == len(OBSERVATIONS)]
    for number in whole:
        ratios[number][DEFAULT] = _by_default(ratios[number], rounds[number][UNSAMPLED.name])
    names = (METRICS.name, DEFAULT, UNSAMPLED.name, SAMPLED.name)
    return [_cost(name, [ratios[number][name] for number in whole]) for name in names]


def _by_default(ratios: Mapping[str, float], unsampled: Turn) -> float:
    """The cost if the first jobs of each second are sampled, at as many jobs a second as one core sends."""
    share = min(1.0, MOST_PER_SECOND * unsampled.cpu_ms_per_job / 1000)
    return ratios[UNSAMPLED.name] + share * (ratios[SAMPLED.name] - ratios[UNSAMPLED.name])


def _cost(name: str, ratios: Sequence[float]) -> Cost:
    return Cost(name, statistics.median(ratios), *interval_of_median(ratios))


def interval_of_median(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the confidence interval of the median, whatever the distribution: by the ranks that it can have. With so
    few values that none has this confidence, it is infinite."""
    count, ordered, below, left_out = len(values), sorted(values), 0.0, 0
    while True:
        below += math.comb(count, left_out) / 2**count
        if 2 * below > 1 - confidence:
            break
        left_out += 1
    return (ordered[left_out - 1], ordered[-left_out]) if left_out else (0.0, math.inf)


def play(rabbitmq_url: str, rounds: int, seconds: float) -> list[Turn]:
    """Run a worker through all rounds, and return its turns."""
    with (
        tempfile.TemporaryDirectory(prefix="floodgate-bench-") as folder,
        servers.instant_telegram(Path(folder) / "fake.log") as fake,
        pipeline(
            Path(folder), rabbitmq_url, fake.url, f"sqlite:///{folder}/state.db", limits={"enabled": False}
        ) as ours,
        collector() as collector_url,
    ):
        notebook = Path(folder) / "turns.jsonl"
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector_url}
        arguments = ["-m", "benchmarks.stage.alternating_worker", str(notebook), str(rounds), str(seconds)]
        worker = Program(arguments, {**ours.env, **env}, ours.home / "worker.log", "worker ready")
        queue = Feed(ours, fake)
        queue.fill()
        worker.start()
        try:
            worker.ready_line()
            return list(watched(worker, notebook, queue, rounds * 2 * len(OBSERVATIONS)))
        finally:
            worker.stop()


class Feed:
    """Keeps a worker's queue filled."""

    def __init__(self, ours: Pipeline, fake: servers.Fake) -> None:
        self._ours = ours
        self._fake = fake
        self._enqueued = 0

    def fill(self) -> None:
        """Enqueue until there are enough jobs ahead of the worker."""
        while self._enqueued - self._fake.control.stats().acted < AHEAD:
            self._ours.enqueue(self._enqueued + 1, BATCH)
            self._enqueued += BATCH


def watched(worker: Program, notebook: Path, queue: Feed, count: int) -> Iterator[Turn]:
    """Yield the turns of a worker, and say how each round went.

    Raises:
        TimeoutError: a turn did not end in time.
        RuntimeError: the worker ended early.
    """
    told, deadline = 0, time.monotonic() + LONGEST_TURN_SECONDS
    while told < count:
        if not worker.running:
            raise RuntimeError(f"The worker ended early. The end of its log:\n{worker.log()[-2000:]}")
        if time.monotonic() > deadline:
            raise TimeoutError(f"turn {told} did not end within {LONGEST_TURN_SECONDS:g} s")
        queue.fill()
        lines = notebook.read_text().splitlines() if notebook.exists() else []
        for line in lines[told:]:
            turn = Turn(**json.loads(line))
            print(f"{turn.round} {turn.observed}: {turn.jobs} jobs", file=sys.stderr, flush=True)
            yield turn
            told, deadline = told + 1, time.monotonic() + LONGEST_TURN_SECONDS
        time.sleep(POLL_SECONDS)


class Dropping(BaseHTTPRequestHandler):
    """Reads spans and drops them."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_given: object) -> None:
        pass


@contextlib.contextmanager
def collector() -> Iterator[str]:
    """Run a collector of spans; yields its URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Dropping) as server:
        thread = threading.Thread(target=server.serve_forever, name="collector")
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def main(arguments: Sequence[str]) -> int:
    """Measure; 0 if nothing is known to cost more than it may."""
    options = _parser().parse_args(arguments)
    rounds, seconds = (8, 0.3) if options.quick else (options.rounds, options.seconds)
    with servers.rabbitmq() as url:
        turns = play(url, rounds, seconds)
    found = costs(turns)
    path = report.save("observability", map(asdict, turns), costs=[asdict(cost) for cost in found])
    report.table(
        f"{rounds} rounds with turns of {seconds:g} s, one worker process, limits off, a Bot API that answers at once",
        ["", "jobs/s", "CPU ms a job", "most", "least"],
        [_row(each.name, [turn for turn in turns if turn.observed == each.name]) for each in (NOTHING, *OBSERVATIONS)],
    )
    for cost in found:
        print(cost, flush=True)
    print(f"written to {path}", file=sys.stderr)
    return 1 if any(cost.missed for cost in found) else 0


def _row(name: str, turns: Sequence[Turn]) -> Sequence[object]:
    spent = [turn.cpu_ms_per_job for turn in turns if turn.jobs]
    per_second = statistics.median(turn.jobs / turn.seconds for turn in turns)
    return [name, per_second, statistics.median(spent), max(spent), min(spent)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("benchmarks observability", description=__doc__)
    parser.add_argument("--rounds", type=int, default=40, help="a turn of each way (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=1.0, help="of a turn (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="a few short rounds; for development")
    return parser
