"""What metrics and traces cost a worker: jobs a second and CPU a job with them, beside the same worker without.

One worker process without limits, a Bot API that answers at once: whatever is counted weighs most here. Rounds
alternate in one run, and each is compared with the round without anything of its turn. Metrics are scraped every
second and reported to the store, and spans go to a collector that reads and drops them.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

from benchmarks.stage import report, servers
from benchmarks.stage.drain import Drained, drain
from benchmarks.stage.pipeline import Pipeline, pipeline
from benchmarks.stage.programs import Program

AT_MOST_SECONDS: Final = 300.0
SCRAPE_SECONDS: Final = 1.0
MOST_COST: Final = 0.03


@dataclass(frozen=True, slots=True)
class Observed:
    """A worker with some of it."""

    name: str
    module: str = "floodgate"
    env: Mapping[str, str] = field(default_factory=dict)
    traced: bool = False

    def program(self, ours: Pipeline, collector_url: str) -> Program:
        arguments = ["-m", self.module, *(["worker"] if self.module == "floodgate" else [])]
        tracing = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector_url} if self.traced else {}
        return Program(arguments, {**ours.env, **self.env, **tracing}, ours.home / "worker.log", "worker ready")


NOTHING: Final = Observed("nothing", "benchmarks.stage.uncounted_worker", env={"FLOODGATE_REPORTS": "0"})
METRICS: Final = Observed("metrics", env={"FLOODGATE_METRICS_ADDRESS": "127.0.0.1:0"})
TRACES: Final = Observed("metrics and traces", env=METRICS.env, traced=True)


@dataclass(frozen=True, slots=True)
class Cost:
    """What one way of observing costs: medians over the pairs of rounds."""

    observed: str
    rate: float
    """Its jobs a second, as a share of those without anything."""
    cpu: float
    """Its CPU a job, as a multiple."""

    @property
    def met(self) -> bool:
        return self.rate >= 1 - MOST_COST

    def __str__(self) -> str:
        return f"{self.observed}: {self.rate:.3f} of the rate (at least {1 - MOST_COST:g}), {self.cpu:.3f} of the CPU"


def costs(rounds: Sequence[Drained]) -> Iterator[Cost]:
    """Compare each round with the one without anything of its turn."""
    without = [each for each in rounds if each.contender == NOTHING.name]
    for name in report.names(rounds):
        its = [each for each in rounds if each.contender == name]
        if name != NOTHING.name:
            pairs = list(zip(its, without, strict=True))
            yield Cost(
                name,
                statistics.median(one.per_second / other.per_second for one, other in pairs),
                statistics.median(one.cpu_ms_per_job / other.cpu_ms_per_job for one, other in pairs),
            )


def play(observed: Observed, rabbitmq_url: str, jobs: int) -> Drained:
    """One round; says how it went."""
    with (
        tempfile.TemporaryDirectory(prefix="floodgate-bench-") as folder,
        servers.instant_telegram(Path(folder) / "fake.log") as fake,
        pipeline(
            Path(folder), rabbitmq_url, fake.url, f"sqlite:///{folder}/state.db", limits={"enabled": False}
        ) as ours,
        collector() as collector_url,
    ):
        ours.enqueue(1, jobs)
        worker = observed.program(ours, collector_url).start()
        try:
            worker.ready_line()
            with scraped(worker):
                found = drain(observed.name, fake, worker, jobs, AT_MOST_SECONDS)
        finally:
            worker.stop()
    print(f"{found.contender}: {found.per_second:.0f}/s", file=sys.stderr, flush=True)
    return found


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


@contextlib.contextmanager
def scraped(worker: Program) -> Iterator[None]:
    """Scrape a worker that serves metrics, until the block ends."""
    lines = [line for line in worker.log().splitlines() if "metrics at http" in line]
    if not lines:
        yield
        return
    url = lines[0].rpartition("metrics at ")[2].split()[0]
    over = threading.Event()

    def scrape() -> None:
        while not over.wait(SCRAPE_SECONDS):
            urllib.request.urlopen(url, timeout=10).read()

    thread = threading.Thread(target=scrape, name="scrape")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def main(arguments: Sequence[str]) -> int:
    """Measure; 0 if nothing costs more than it may."""
    options = _parser().parse_args(arguments)
    jobs, count = (2_000, 1) if options.quick else (options.jobs, options.rounds)
    with servers.rabbitmq() as url:
        rounds = [play(each, url, jobs) for _ in range(count) for each in (NOTHING, METRICS, TRACES)]
    found = list(costs(rounds))
    path = report.save("observability", map(asdict, rounds), costs=[asdict(cost) for cost in found])
    report.table(
        f"{jobs} jobs a round, one worker process, limits off, a Bot API that answers at once",
        ["", "jobs/s", "CPU ms a job", "cores busy"],
        [[each.contender, each.per_second, each.cpu_ms_per_job, each.busy_cores] for each in rounds],
    )
    for cost in found:
        print(cost, flush=True)
    print(f"written to {path}", file=sys.stderr)
    return 0 if all(cost.met for cost in found) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("benchmarks observability", description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000, help="a round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="of each (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="one short round; for development")
    return parser
