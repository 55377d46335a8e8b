"""Many bots in one worker at default settings: start, memory, threads and CPU when idle, beside the former worker.

Each size has a RabbitMQ node of its own. The first start declares the queues; the worker is stopped and started again,
and that start, from the command to the line that says it is ready, is the one that counts. Then it idles. The Bot API
answers at once, and nothing is sent. All other processes' CPU is given, too: RabbitMQ's, above all.

The former worker plays with up to 10 bots: its threads grow with the number of bots and its memory with the square.
With 30 it has 3,800 threads and 2.1 GB, and on a busy machine it was not ready after three minutes and 200 s of CPU;
``--former 30`` tries it all the same. A worker that does not start is reported and left out.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Final

from benchmarks.stage import report, servers
from benchmarks.stage.drain import machine_seconds
from benchmarks.stage.editions import CURRENT, FORMER, Edition, editions
from benchmarks.stage.pipeline import environment
from benchmarks.stage.programs import Program, ProgramError
from rabbitmq_node.node import Node

READY_SECONDS: Final = 180.0
DECLARING_STARTS: Final = 5
SETTLE_SECONDS: Final = 10.0  # what follows a start, such as opening connections, is not idling
FIRST_ID: Final = 100_000_001
MEGABYTE: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Round:
    """One worker. CPU is in parts of one core; ``rest_idle_cpu`` is all other processes', RabbitMQ's above all."""

    contender: str
    bots: int
    declaring_seconds: float
    start_seconds: float
    start_cpu_seconds: float
    resident_mb: float
    threads: float
    idle_cpu: float
    rest_idle_cpu: float
    load: float

    @property
    def row(self) -> tuple[str, int]:
        return self.contender, self.bots


# At 100 bots, at most.
MUST: Final = {"resident_mb": 250.0, "idle_cpu": 0.05, "start_seconds": 15.0}
JUDGED_BOTS: Final = 100


def play(edition: Edition, bots: int, idle_seconds: float) -> Round:
    """One size, on a RabbitMQ of its own."""
    with tempfile.TemporaryDirectory(prefix="floodgate-bench-") as folder, Node() as node:
        home = Path(folder)
        with servers.instant_telegram(home / "fake.log") as fake:
            env = environment(
                {
                    "rabbitmq_url": node.url,
                    "telegram_api_url": fake.url,
                    "state_url": f"sqlite:///{home}/state.db",
                    "bots": {f"bot{n:03}": f"{FIRST_ID + n}:{'A' * 35}" for n in range(bots)},
                }
            )
            declaring = _declared(edition, env, home)
            worker = edition.worker(env, home / "worker.log")
            try:
                return _idle(edition.name, bots, declaring, worker, idle_seconds)
            finally:
                worker.stop()


def _declared(edition: Edition, env: Mapping[str, str], home: Path) -> float:
    """Start it until all queues are there, and stop it; the seconds that took.

    The former worker gives up declaring after a minute, and the next start finds what the ones before have declared.

    Raises:
        ProgramError: it never was ready.
    """
    began = time.monotonic()
    for starts_left in reversed(range(DECLARING_STARTS)):
        first = edition.worker(env, home / f"declaring-{starts_left}.log")
        try:
            _started(first)
            break
        except ProgramError:
            if not starts_left:
                raise
        finally:
            first.stop()
    return time.monotonic() - began


def _started(worker: Program) -> float:
    """Start it; the seconds until it was ready."""
    began = time.monotonic()
    worker.start().ready_line(READY_SECONDS)
    return time.monotonic() - began


def _idle(name: str, bots: int, declaring: float, worker: Program, seconds: float) -> Round:
    start = _started(worker)
    start_cpu = worker.cpu_seconds()
    time.sleep(SETTLE_SECONDS)
    before, machine_before, began = worker.cpu_seconds(), machine_seconds(), time.monotonic()
    time.sleep(seconds)
    took = time.monotonic() - began
    own, machine = (worker.cpu_seconds() - before) / took, (machine_seconds() - machine_before) / took
    megabytes, threads = worker.resident_bytes() / MEGABYTE, worker.threads()
    load = os.getloadavg()[0]
    return Round(name, bots, declaring, start, start_cpu, megabytes, threads, own, machine - own, load)


def sizes(now: Sequence[int], former: Sequence[int]) -> Iterator[tuple[Edition, int]]:
    """Who plays with how many bots, the small ones first."""
    for edition in editions():
        for bots in former if edition is FORMER else now:
            yield edition, bots


def medians(rounds: Sequence[Round]) -> list[Round]:
    """One for each contender and number of bots, every figure the median of its rounds."""
    found = []
    for row in dict.fromkeys(each.row for each in rounds):
        same = [each for each in rounds if each.row == row]
        figures = [field.name for field in fields(Round)][2:]
        found.append(Round(*row, *(statistics.median(getattr(each, figure) for each in same) for figure in figures)))
    return found


def met(rows: Sequence[Round]) -> bool:
    """Whether this worker does what is asked with a hundred bots; True when that was not measured."""
    judged = [row for row in rows if row.row == (CURRENT.name, JUDGED_BOTS)]
    return all(getattr(row, figure) <= most for row in judged for figure, most in MUST.items())


def main(arguments: Sequence[str]) -> int:
    """Measure; 0 when a hundred bots take no more than they may."""
    options = _parser().parse_args(arguments)
    now, former, seconds, count = options.bots, options.former, options.idle, options.rounds
    if options.quick:
        now, former, seconds, count = [3], [3], 3.0, 1
    players = [
        (edition, bots)
        for edition, bots in sizes(now, former)
        if not options.who or any(word in edition.name for word in options.who)
    ]
    rounds: list[Round] = []
    faults: list[str] = []
    for _ in range(count):
        for edition, bots in players:
            try:
                rounds.append(_told(play(edition, bots, seconds)))
            except ProgramError as error:  # a worker that cannot serve so many is a result, too
                faults.append(f"{edition.name} did not start with {bots} bots: {str(error).splitlines()[-1]}")
    rows = medians(rounds)
    path = report.save("bots", map(asdict, rounds), faults=faults)
    _show(rows)
    print(*faults, f"written to {path}", sep="\n", file=sys.stderr)
    return 0 if met(rows) and not any(fault.startswith(CURRENT.name) for fault in faults) else 1


def _show(rows: Sequence[Round]) -> None:
    report.table(
        "One send worker at default settings. With 100 bots at most 250 MB, 5 % of a core, 15 s",
        ["", "bots", "first start s", "start s", "CPU s", "MB", "threads", "idle % of a core", "all others' %", "load"],
        [
            [
                row.contender,
                row.bots,
                row.declaring_seconds,
                row.start_seconds,
                row.start_cpu_seconds,
                row.resident_mb,
                row.threads,
                row.idle_cpu * 100,
                row.rest_idle_cpu * 100,
                row.load,
            ]
            for row in rows
        ],
    )


def _told(found: Round) -> Round:
    print(
        f"{found.contender}, {found.bots} bots: ready in {found.start_seconds:.1f} s, {found.resident_mb:.0f} MB, "
        f"{found.threads:.0f} threads, {found.idle_cpu:.1%} of a core",
        file=sys.stderr,
        flush=True,
    )
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks bots", description=__doc__)
    parser.add_argument("--bots", type=int, nargs="+", default=[1, 10, 30, 100], help="sizes (default: 1 10 30 100)")
    parser.add_argument("--former", type=int, nargs="+", default=[1, 10], help="the former's (default: 1 10)")
    parser.add_argument("--idle", type=float, default=30, help="seconds of idling (default: %(default)s)")
    parser.add_argument("--who", nargs="+", metavar="WORD", help="floodgate, former")
    parser.add_argument("--rounds", type=int, default=1, help="of each (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="three bots, a few seconds; for development")
    return parser
