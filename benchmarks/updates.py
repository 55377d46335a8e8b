"""Updates a second and seconds to the answer, with handlers of 100 ms: 1, 2 and 4 handler workers, beside two peers.

The peers are python-telegram-bot with ``concurrent_updates(True)``, which keeps no order, and grammY's runner with
``sequentialize``, which keeps a chat's; both receive by long polling in one process and send straight to the Bot API.
Everybody gets the same load: a burst, then a steady rate. The fake Telegram answers at once and knows no limits, and
Floodgate's own are off. Rounds alternate, so that whatever else the machine does is shared.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Final, Protocol

from benchmarks.stage import report, servers
from benchmarks.stage.audience import Audience, Heard
from benchmarks.stage.pipeline import BOT_ID, TOKEN, pipeline
from benchmarks.stage.programs import ROOT, Program

PEERS: Final = Path(__file__).with_name("peers")
USERS: Final = 500
WARM_UP: Final = 50
AT_MOST_SECONDS: Final = 120.0


@dataclass(frozen=True, slots=True)
class Place:
    """What a contender gets for one round."""

    home: Path
    rabbitmq_url: str
    fake: servers.Fake
    partitions: int
    env: Mapping[str, str]


class Contender(Protocol):
    """Someone who answers a bot's updates. Yields its processes once it receives."""

    @property
    def name(self) -> str: ...

    def on_stage(self, place: Place) -> contextlib.AbstractContextManager[list[Program]]: ...


@dataclass(frozen=True, slots=True)
class Peer:
    """One process of somebody else's: an interpreter and what it runs, given the URL and the token."""

    name: str
    interpreter: str
    arguments: tuple[str, ...]

    @contextlib.contextmanager
    def on_stage(self, place: Place) -> Iterator[list[Program]]:
        env = {"NODE_PATH": str(_node_modules()), **place.env}
        arguments = [*self.arguments, place.fake.url, TOKEN]
        program = Program(arguments, env, place.home / "peer.log", "receiving", self.interpreter).start()
        try:
            program.ready_line()
            yield [program]
        finally:
            program.stop()


@dataclass(frozen=True, slots=True)
class Floodgate:
    """A receiver, so many handler workers, and a send worker."""

    handlers: int

    @property
    def name(self) -> str:
        return f"floodgate, {self.handlers} worker{'s' if self.handlers > 1 else ''}"

    @contextlib.contextmanager
    def on_stage(self, place: Place) -> Iterator[list[Program]]:
        off = {"limits": {"enabled": False}, "update_partitions": place.partitions}
        state = f"sqlite:///{place.home}/state.db"
        with (
            contextlib.ExitStack() as stack,
            pipeline(place.home, place.rabbitmq_url, place.fake.url, state, **off) as ours,
        ):
            ours.start_workers(1)
            env = {**ours.env, **place.env, "BENCH_TOKEN": TOKEN}
            handling = ["-m", "floodgate", "worker", "--updates", "benchmarks.stage.answering:application"]
            programs = [
                Program(handling, env, place.home / f"handler-{number}.log", "worker ready")
                for number in range(self.handlers)
            ]
            programs.append(Program(["-m", "floodgate", "updates"], env, place.home / "receiver.log", "receiver ready"))
            for program in programs:
                stack.callback(program.start().stop)
            for program in programs:
                program.ready_line()
            yield [*programs, *ours.workers]


@dataclass(frozen=True, slots=True)
class Load:
    """What everybody gets in a round."""

    burst: int
    per_second: float
    seconds: float
    blocking: bool


@dataclass(frozen=True, slots=True)
class Round:
    """One contender's round. CPU is of all its processes in the burst, RabbitMQ's and the fake's left out."""

    contender: str
    burst: Heard
    steady: Heard
    cpu_ms_per_update: float

    @property
    def failed(self) -> int:
        """Messages without an answer, or with more than one."""
        return sum(each.said - each.answered + each.doubled for each in (self.burst, self.steady))


def contenders(workers: Sequence[int], peers: bool = True) -> Iterator[Contender]:
    """All that can run here. What cannot is named."""
    yield from (Floodgate(count) for count in workers)
    if not peers:
        return
    yield Peer("python-telegram-bot", sys.executable, ("-m", "benchmarks.peers.updates_ptb"))
    node = shutil.which("node")
    if node and (_node_modules() / "@grammyjs" / "runner").exists():
        yield Peer("grammY runner", node, (str(PEERS / "updates_grammy.cjs"),))
    else:
        print("grammY is not installed here: scripts/setup --tests installs it where Node is", file=sys.stderr)


def play(contender: Contender, load: Load, rabbitmq_url: str, partitions: int) -> Round:
    """One round, on a fake Telegram of its own."""
    with tempfile.TemporaryDirectory(prefix="floodgate-bench-") as folder:
        home = Path(folder)
        with servers.fake_telegram(home / "fake.log", limits=False) as fake:
            env = {"BENCH_BLOCKING": "1"} if load.blocking else {}
            place = Place(home, rabbitmq_url, fake, partitions, env)
            with contender.on_stage(place) as programs:
                return _round(contender.name, Audience(fake.control, BOT_ID, USERS), load, programs)


def _round(name: str, audience: Audience, load: Load, programs: Sequence[Program]) -> Round:
    audience.hear(audience.at_once(WARM_UP), AT_MOST_SECONDS)  # connections and queues are there
    before = sum(program.cpu_seconds() for program in programs)
    burst = audience.hear(audience.at_once(load.burst), AT_MOST_SECONDS)
    cpu_seconds = sum(program.cpu_seconds() for program in programs) - before
    steady = audience.hear(audience.steadily(load.per_second, load.seconds), AT_MOST_SECONDS)
    return Round(name, burst, steady, cpu_seconds / load.burst * 1000)


def _node_modules() -> Path:
    return Path(os.environ.get("FLOODGATE_CLIENTS_NODE", ROOT / ".cache" / "clients")) / "node_modules"


def main(arguments: Sequence[str]) -> int:
    """Measure; 0 when every message had one answer and Floodgate's came in order."""
    options = _parser().parse_args(arguments)
    burst, seconds = (500, 5) if options.quick else (options.burst, options.seconds)
    load = Load(burst, options.rate, seconds, options.blocking)
    with servers.rabbitmq() as url:
        players = list(contenders([1] if options.quick else options.workers, not options.alone))
        turns = players * (1 if options.quick else options.rounds)
        rounds = [_told(play(player, load, url, options.partitions)) for player in turns]
    report.save("updates", map(asdict, rounds))
    _show(load, options.partitions, rounds)
    kept = all(not each.burst.disorder + each.steady.disorder for each in rounds if each.contender.startswith("flood"))
    return 0 if kept and not any(each.failed for each in rounds) else 1


def _show(load: Load, partitions: int, rounds: Sequence[Round]) -> None:
    names = list(dict.fromkeys(each.contender for each in rounds))
    kind = "that block" if load.blocking else "that await"
    loads = f"A burst of {load.burst} updates from {USERS} users, then {load.per_second:g}/s for {load.seconds:g} s"
    report.table(
        f"Handlers of 100 ms {kind}. {loads}; {partitions} partitions of updates. "
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
    parser.add_argument("--alone", action="store_true", help="without the peers")
    parser.add_argument("--rounds", type=int, default=3, help="of each (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="one short round with one worker")
    return parser
