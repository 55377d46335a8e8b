"""Updates a second and seconds to the answer, with handlers of 100 ms: this Floodgate, the former one, two libraries.

Everybody gets the same load: a burst, then a steady rate. Floodgate runs a plain ``@on_update`` function, then an
Application. The fake Telegram answers at once and knows no limits, and Floodgate's own are off. Rounds alternate, so
that whatever else the machine does is shared.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Final

from benchmarks.stage import report, servers
from benchmarks.stage.answerers import APPLICATION, FUNCTION, Answerer, Floodgate, Place, floodgates, peers
from benchmarks.stage.audience import Audience, Heard
from benchmarks.stage.editions import FORMER
from benchmarks.stage.pipeline import BOT_ID
from benchmarks.stage.programs import Program

USERS: Final = 500
WARM_UP: Final = 50
AT_MOST_SECONDS: Final = 120.0
# Times the former Floodgate's updates a second in the burst, at least.
MUST: Final = {FUNCTION: 2.0, APPLICATION: 1.2}


@dataclass(frozen=True, slots=True)
class Load:
    """What everybody gets in a round."""

    burst: int
    per_second: float
    seconds: float
    blocking: bool
    work_seconds: float

    @property
    def env(self) -> dict[str, str]:
        """What the handlers read."""
        return {"BENCH_WORK_SECONDS": str(self.work_seconds)} | ({"BENCH_BLOCKING": "1"} if self.blocking else {})


@dataclass(frozen=True, slots=True)
class Round:
    """One contender's round. CPU is of all its processes in the burst, RabbitMQ's and the fake's left out."""

    contender: str
    burst: Heard
    steady: Heard
    cpu_ms_per_update: float
    load: float

    @property
    def failed(self) -> int:
        """Messages without an answer, or with more than one."""
        return sum(each.said - each.answered + each.doubled for each in (self.burst, self.steady))


def play(contender: Answerer, load: Load, rabbitmq_url: str, partitions: int) -> Round:
    """One round, on a fake Telegram of its own."""
    with tempfile.TemporaryDirectory(prefix="floodgate-bench-") as folder:
        home = Path(folder)
        with servers.fake_telegram(home / "fake.log", limits=False) as fake:
            place = Place(home, rabbitmq_url, fake, load.env, {"update_partitions": partitions})
            with contender.on_stage(place) as programs:
                return _round(contender.name, Audience(fake.control, BOT_ID, USERS), load, programs)


def _round(name: str, audience: Audience, load: Load, programs: Sequence[Program]) -> Round:
    audience.hear(audience.at_once(WARM_UP, "warm"), AT_MOST_SECONDS)  # connections and queues are there
    before = sum(program.cpu_seconds() for program in programs)
    burst = audience.hear(audience.at_once(load.burst), AT_MOST_SECONDS)
    cpu_seconds = sum(program.cpu_seconds() for program in programs) - before
    steady = audience.hear(audience.steadily(load.per_second, load.seconds), AT_MOST_SECONDS)
    return Round(name, burst, steady, cpu_seconds / load.burst * 1000, os.getloadavg()[0])


def ratios(rounds: Sequence[Round]) -> dict[str, float]:
    """By kind of handler: times the former Floodgate's updates a second in the burst, one worker each."""
    rates = {
        name: statistics.median(each.burst.per_second for each in rounds if each.contender == name)
        for name in report.names(rounds)
    }
    pairs = {kind: (Floodgate(kind).name, Floodgate(kind, edition=FORMER).name) for kind in MUST}
    return {kind: rates[now] / rates[then] for kind, (now, then) in pairs.items() if now in rates and then in rates}


def main(arguments: Sequence[str]) -> int:
    """Measure; 0 when every message had one answer, Floodgate's came in order and are as many more as they must be."""
    options = _parser().parse_args(arguments)
    burst, seconds = (500, 5) if options.quick else (options.burst, options.seconds)
    load = Load(burst, options.rate, seconds, options.blocking, options.work_ms / 1000)
    everybody: list[Answerer] = [*floodgates([1] if options.quick else options.workers), *peers()]
    chosen = [each for each in everybody if not options.who or any(word in each.name for word in options.who)]
    with servers.rabbitmq() as url:
        turns = chosen * (1 if options.quick else options.rounds)
        rounds = [_told(play(player, load, url, options.partitions)) for player in turns]
    compared = ratios(rounds)
    path = report.save("updates", map(asdict, rounds), options=vars(options), times_former=compared)
    _show(load, options.partitions, rounds)
    for kind, ratio in compared.items():
        print(f"{kind}: {ratio:.2f} times the former Floodgate's rate in the burst (at least {MUST[kind]:g})")
    print(f"written to {path}", file=sys.stderr)
    kept = all(not each.burst.disorder + each.steady.disorder for each in rounds if each.contender.startswith("flood"))
    enough = all(ratio >= MUST[kind] for kind, ratio in compared.items())
    return 0 if kept and enough and not any(each.failed for each in rounds) else 1


def _show(load: Load, partitions: int, rounds: Sequence[Round]) -> None:
    names = report.names(rounds)
    kind = "that block" if load.blocking else "that await"
    loads = f"A burst of {load.burst} updates from {USERS} users, then {load.per_second:g}/s for {load.seconds:g} s"
    report.table(
        f"Handlers of {load.work_seconds * 1000:g} ms {kind}. {loads}; {partitions} partitions of updates. "
        f"Medians of {len(rounds) // len(names)}, seconds from an update's arrival at Telegram to its answer's",
        [
            "",
            "burst: handled/s",
            "p50 s",
            "p99 s",
            "steady: handled/s",
            "p50 s",
            "p99 s",
            "out of order",
            "lost or doubled",
            "CPU ms an update",
        ],
        [_row(name, [each for each in rounds if each.contender == name]) for name in names],
    )


def _row(name: str, rounds: Sequence[Round]) -> list[object]:
    middle = statistics.median
    measured = [
        middle(getattr(getattr(each, load), figure.name) for each in rounds)
        for load in ("burst", "steady")
        for figure in fields(Heard)
        if figure.name in ("per_second", "p50_seconds", "p99_seconds")
    ]
    disorder = sum(each.burst.disorder + each.steady.disorder for each in rounds)
    cpu = middle(each.cpu_ms_per_update for each in rounds)
    return [name, *measured, disorder, sum(each.failed for each in rounds), cpu]


def _told(found: Round) -> Round:
    print(
        f"{found.contender}: {found.burst.per_second:.0f}/s, p99 at a steady rate {found.steady.p99_seconds:.2f} s",
        file=sys.stderr,
        flush=True,
    )
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks updates", description=__doc__)
    parser.add_argument("--burst", type=int, default=3000, help="updates at once (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=80, help="updates a second, steadily (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=15, help="of the steady rate (default: %(default)s)")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4], help="handler workers (default: 1 2 4)")
    parser.add_argument("--partitions", type=int, default=64, help="of updates (default: %(default)s)")
    parser.add_argument("--blocking", action="store_true", help="handlers keep their process to themselves meanwhile")
    parser.add_argument("--work-ms", type=float, default=100, help="of a handler (default: %(default)s)")
    parser.add_argument("--who", nargs="+", metavar="WORD", help="contenders whose names hold one of these")
    parser.add_argument("--rounds", type=int, default=3, help="of each (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="one short round with one worker")
    return parser
