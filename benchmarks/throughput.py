"""Jobs a second and CPU a job of one worker process without limits: this worker, the former one, stock Dramatiq.

The Bot API answers at once, judges nothing and takes next to no CPU. Everybody gets the same messages, queued before
the worker starts; rounds alternate, so that whatever else the machine does is shared. Rates are of the middle four
fifths of a round. RabbitMQ, the Bot API and this program share the machine with the worker: "cores busy" says whether
the machine or the one process was the bound.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Protocol

from benchmarks.stage import report, servers
from benchmarks.stage.drain import Drained, drain
from benchmarks.stage.editions import CURRENT, FORMER, Edition, editions
from benchmarks.stage.pipeline import TOKEN, pipeline
from benchmarks.stage.programs import Program

AT_MOST_SECONDS: Final = 300.0
OFF: Final = {"limits": {"enabled": False}}


@dataclass(frozen=True, slots=True)
class Place:
    """What a contender gets for one round."""

    home: Path
    rabbitmq_url: str
    redis_url: str
    jobs: int


class Contender(Protocol):
    """One row of the table."""

    @property
    def name(self) -> str: ...

    def play(self, place: Place) -> Drained: ...


@dataclass(frozen=True, slots=True)
class Floodgate:
    """One ``floodgate worker`` with the default settings but for the limits."""

    edition: Edition
    store: str  # "SQLite" or "Redis"

    @property
    def name(self) -> str:
        return f"{self.edition.name}, {self.store}"

    def play(self, place: Place) -> Drained:
        state = place.redis_url if self.store == "Redis" else f"sqlite:///{place.home}/state.db"
        with (
            servers.instant_telegram(place.home / "fake.log") as fake,
            pipeline(place.home, place.rabbitmq_url, fake.url, state, self.edition, **OFF) as ours,
        ):
            ours.enqueue(1, place.jobs)
            ours.start_workers(1)
            return drain(self.name, fake, ours.workers[0], place.jobs, AT_MOST_SECONDS)


@dataclass(frozen=True, slots=True)
class Stock:
    """``dramatiq`` with one process and its default threads, its RabbitMQ broker, PTB's default HTTP stack."""

    name: str = "stock Dramatiq and PTB"

    def play(self, place: Place) -> Drained:
        with servers.instant_telegram(place.home / "fake.log") as fake:
            env = {
                "BENCH_RABBITMQ_URL": place.rabbitmq_url,
                "BENCH_API_URL": fake.url,
                "BENCH_TOKEN": TOKEN,
                "BENCH_QUEUE": f"stock-{uuid.uuid4().hex[:6]}",
            }
            filling = ["-m", "benchmarks.peers.fill", "benchmarks.peers.stock_worker", str(place.jobs)]
            Program(filling, env, place.home / "fill.log", "filled").start().ready_line()
            command = ["-m", "dramatiq", "benchmarks.peers.stock_worker", "-p", "1", "-Q", env["BENCH_QUEUE"]]
            worker = Program(command, env, place.home / "worker.log", "ready for action").start()
            try:
                worker.ready_line()
                return drain(self.name, fake, worker, place.jobs, AT_MOST_SECONDS)
            finally:
                worker.stop()


@dataclass(frozen=True, slots=True)
class Score:
    """The medians of one contender's rounds."""

    contender: str
    per_second: float
    cpu_ms: float
    bot_api_ms: float
    busy_cores: float
    rates: tuple[float, ...]
    doubled: int

    @classmethod
    def of(cls, rounds: Sequence[Drained]) -> Score:
        middle = statistics.median
        return cls(
            rounds[0].contender,
            middle(each.per_second for each in rounds),
            middle(each.cpu_ms_per_job for each in rounds),
            middle(each.bot_api_ms_per_job for each in rounds),
            middle(each.busy_cores for each in rounds),
            tuple(each.per_second for each in rounds),
            sum(each.doubled for each in rounds),
        )


@dataclass(frozen=True, slots=True)
class Ratio:
    """This worker beside the former one on the same store, and what is asked of it."""

    store: str
    rate: float
    cpu: float

    @property
    def met(self) -> bool:
        least_rate, most_cpu = MUST[self.store]
        return self.rate >= least_rate and self.cpu <= most_cpu

    def __str__(self) -> str:
        least_rate, most_cpu = MUST[self.store]
        bound = f", at most {most_cpu:g}" if most_cpu < 1 else ""
        return (
            f"{self.store}: {self.rate:.2f} times the former worker's rate (at least {least_rate:g}), "
            f"{self.cpu:.2f} of its CPU a job{bound}"
        )


# By store: times the former rate at least, parts of the former CPU a job at most.
MUST: Final = {"SQLite": (3.0, 0.45), "Redis": (2.5, 1.0)}


def ratios(scores: Sequence[Score]) -> Iterator[Ratio]:
    """One for each store on which both ran."""
    found = {score.contender: score for score in scores}
    for store in MUST:
        now, then = (found.get(Floodgate(edition, store).name) for edition in (CURRENT, FORMER))
        if now and then:
            yield Ratio(store, now.per_second / then.per_second, now.cpu_ms / then.cpu_ms)


def contenders() -> list[Contender]:
    return [*(Floodgate(edition, store) for store in MUST for edition in editions()), Stock()]


def play(contender: Contender, rabbitmq_url: str, redis_url: str, jobs: int) -> Drained:
    """One round; says how it went."""
    with tempfile.TemporaryDirectory(prefix="floodgate-bench-") as folder:
        found = contender.play(Place(Path(folder), rabbitmq_url, redis_url, jobs))
    print(f"{found.contender}: {found.per_second:.0f}/s", file=sys.stderr, flush=True)
    return found


def main(arguments: Sequence[str]) -> int:
    """Measure; 0 when what is asked beside the former worker is met and nothing was sent twice."""
    options = _parser().parse_args(arguments)
    jobs, count = (2_000, 1) if options.quick else (options.jobs, options.rounds)
    chosen = [each for each in contenders() if not options.who or any(word in each.name for word in options.who)]
    with servers.rabbitmq() as url, servers.redis() as redis_url:
        rounds = [play(each, url, redis_url, jobs) for _ in range(count) for each in chosen]
    scores = [Score.of([each for each in rounds if each.contender == name]) for name in report.names(rounds)]
    compared = list(ratios(scores))
    path = report.save("throughput", map(asdict, rounds), scores=[asdict(score) for score in scores])
    _show(jobs, scores, compared)
    print(f"written to {path}", file=sys.stderr)
    return 0 if all(ratio.met for ratio in compared) and not any(score.doubled for score in scores) else 1


def _show(jobs: int, scores: Sequence[Score], compared: Sequence[Ratio]) -> None:
    report.table(
        f"{jobs} jobs a round, one worker process, limits off, a Bot API that answers at once; medians",
        ["", "jobs/s", "rounds", "CPU ms a job", "the Bot API's", "cores busy", "doubled"],
        [
            [
                score.contender,
                score.per_second,
                " ".join(f"{rate:.0f}" for rate in score.rates),
                score.cpu_ms,
                score.bot_api_ms,
                score.busy_cores,
                score.doubled,
            ]
            for score in scores
        ],
    )
    for ratio in compared:
        print(ratio, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("benchmarks throughput", description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000, help="a round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of each (default: %(default)s)")
    parser.add_argument("--who", nargs="+", metavar="WORD", help="contenders whose names hold one of these")
    parser.add_argument("--quick", action="store_true", help="one short round; for development")
    return parser
