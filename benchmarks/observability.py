"""What metrics and traces cost a worker: its CPU a job with them, beside the same process without.

One worker process without limits, a Bot API that answers at once: whatever is observed weighs most here. The process is
observed in turns of a second (:mod:`benchmarks.stage.alternating_worker`), and each turn is compared with the one
without anything of the same round. CPU is compared and not jobs a second, because a machine that is busy with other
things takes away time, but hardly makes work. The bound is met if the whole confidence interval is below it, and missed
if the whole is above it; otherwise there were too few rounds to tell.

In each turn with metrics they are scraped once and reported to the store; spans go to a collector that reads and drops
them. Traces as they are by default, the first :data:`MOST_PER_SECOND` jobs of each second, are not a turn of their own:
they are as large a part of the jobs as a worker sends that has a core to itself, whatever this machine leaves to it.
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


def whole_rounds(turns: Sequence[Turn]) -> list[Turn]:
    """Return the turns of the rounds that count: without the first, and without those in which the worker stood still
    for a whole turn."""
    idle = {turn.number for turn in turns if not turn.jobs}
    return [turn for turn in turns if turn.number >= FIRST_ROUNDS and turn.number not in idle]


def costs(turns: Sequence[Turn]) -> list[Cost]:
    """Compare the turns of each round with that without anything."""
    rounds: defaultdict[int, dict[str, float]] = defaultdict(dict)
    for turn in turns:
        rounds[turn.number][turn.observed] = turn.cpu_ms_per_job
    for spent in rounds.values():
        spent[DEFAULT] = _by_default(spent)
    names = (METRICS.name, DEFAULT, UNSAMPLED.name, SAMPLED.name)
    return [_cost(name, [spent[name] / spent[NOTHING.name] for spent in rounds.values()]) for name in names]


def _by_default(spent: Mapping[str, float]) -> float:
    """The CPU a job if the first jobs of each second are sampled, at as many jobs a second as one core sends."""
    unsampled, sampled = spent[UNSAMPLED.name], spent[SAMPLED.name]
    return unsampled + (sampled - unsampled) * min(1.0, MOST_PER_SECOND * unsampled / 1000)


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
            return list(watched(worker, notebook, queue, rounds * len(OBSERVATIONS)))
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
            print(f"{turn.number} {turn.observed}: {turn.jobs} jobs", file=sys.stderr, flush=True)
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
        turns = whole_rounds(play(url, rounds, seconds))
    found = costs(turns)
    path = report.save("observability", map(asdict, turns), costs=[asdict(cost) for cost in found])
    report.table(
        f"{rounds} rounds with turns of {seconds:g} s, one worker process, limits off, a Bot API that answers at once",
        ["", "jobs/s", "CPU ms a job", "most", "least"],
        [_row(each.name, [turn for turn in turns if turn.observed == each.name]) for each in OBSERVATIONS],
    )
    for cost in found:
        print(cost, flush=True)
    print(f"written to {path}", file=sys.stderr)
    return 1 if any(cost.missed for cost in found) else 0


def _row(name: str, turns: Sequence[Turn]) -> Sequence[object]:
    spent = [turn.cpu_ms_per_job for turn in turns]
    per_second = statistics.median(turn.jobs / turn.seconds for turn in turns)
    return [name, per_second, statistics.median(spent), max(spent), min(spent)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("benchmarks observability", description=__doc__)
    parser.add_argument("--rounds", type=int, default=40, help="a turn of each way (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=1.0, help="of a turn (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="a few short rounds; for development")
    return parser
