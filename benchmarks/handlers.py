"""Slow handlers: 1,000 users write at once and each handler waits 5 s; then the same beside a chat that takes 60 s.

One handler worker at default settings, limits off, beside two libraries in one process each: grammY's runner, which
handles 500 updates at once, and python-telegram-bot with ``concurrent_updates(True)``, which handles 256. What counts
is when all are answered, and whether the slow chat makes anybody else wait. The former Floodgate handles 16 at once and
takes ten minutes a round: it plays with ``--who former``.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from benchmarks.stage import report, servers
from benchmarks.stage.answerers import Answerer, Place, floodgates, peers
from benchmarks.stage.audience import Audience, Heard
from benchmarks.stage.editions import CURRENT
from benchmarks.stage.pipeline import BOT_ID

WARM_UP: Final = 20
AT_MOST_SECONDS: Final = 600.0
MOST_TIMES_GRAMMY: Final = 1.5
MOST_LATER: Final = 1.1
GRAMMY: Final = "grammY runner"


@dataclass(frozen=True, slots=True)
class Load:
    """What everybody gets in a round."""

    users: int
    work_seconds: float
    slow_seconds: float

    @property
    def env(self) -> dict[str, str]:
        return {"BENCH_WORK_SECONDS": str(self.work_seconds), "BENCH_SLOW_SECONDS": str(self.slow_seconds)}


@dataclass(frozen=True, slots=True)
class Round:
    """One contender's round: all users at once, then the same with a slow chat ahead of them, not counted itself."""

    contender: str
    plain: Heard
    beside_slow: Heard
    slow: Heard
    load: float

    @property
    def failed(self) -> int:
        """Messages without an answer, or with more than one."""
        return sum(each.said - each.answered + each.doubled for each in (self.plain, self.beside_slow, self.slow))


@dataclass(frozen=True, slots=True)
class Score:
    """The medians of one contender's rounds, in seconds until the last user was answered."""

    contender: str
    plain_seconds: float
    beside_slow_seconds: float
    p50_seconds: float
    slow_seconds: float
    failed: int
    disorder: int

    @classmethod
    def of(cls, rounds: Sequence[Round]) -> Score:
        return cls(
            rounds[0].contender,
            statistics.median(each.plain.last_seconds for each in rounds),
            statistics.median(each.beside_slow.last_seconds for each in rounds),
            statistics.median(each.plain.p50_seconds for each in rounds),
            statistics.median(each.slow.last_seconds for each in rounds),
            sum(each.failed for each in rounds),
            sum(each.plain.disorder + each.beside_slow.disorder for each in rounds),
        )

    @property
    def later(self) -> float:
        """Times as long for the others when a slow chat is there."""
        return self.beside_slow_seconds / self.plain_seconds


def play(contender: Answerer, load: Load, rabbitmq_url: str) -> Round:
    """One round, on a fake Telegram of its own."""
    with tempfile.TemporaryDirectory(prefix="floodgate-bench-") as folder:
        home = Path(folder)
        with (
            servers.fake_telegram(home / "fake.log", limits=False) as fake,
            contender.on_stage(Place(home, rabbitmq_url, fake, load.env, {})),
        ):
            found = _round(contender.name, Audience(fake.control, BOT_ID, load.users), load)
    print(f"{found.contender}: all answered after {found.plain.last_seconds:.1f} s", file=sys.stderr, flush=True)
    return found


def _round(name: str, audience: Audience, load: Load) -> Round:
    audience.hear(audience.at_once(WARM_UP, "warm"), AT_MOST_SECONDS)  # connections and queues are there
    plain = audience.hear(audience.at_once(load.users), AT_MOST_SECONDS)
    slow = audience.at_once(1, "slow")
    others = audience.at_once(load.users - 1)  # everybody but the slow one
    beside_slow = audience.hear(others, AT_MOST_SECONDS)
    return Round(name, plain, beside_slow, audience.hear(slow, load.slow_seconds + AT_MOST_SECONDS), os.getloadavg()[0])


def main(arguments: Sequence[str]) -> int:
    """Measure; 0 when every message had one answer, as soon as it must be, and the slow chat made nobody wait."""
    options = _parser().parse_args(arguments)
    load = Load(200, 1.0, 5.0) if options.quick else Load(options.users, options.work, options.slow)
    everybody: list[Answerer] = [*floodgates([1]), *peers()]
    words = options.who or [CURRENT.name, *(peer.name for peer in peers())]
    chosen = [each for each in everybody if any(word in each.name for word in words)]
    with servers.rabbitmq() as url:
        rounds = [play(each, load, url) for _ in range(1 if options.quick else options.rounds) for each in chosen]
    scores = [Score.of([each for each in rounds if each.contender == name]) for name in report.names(rounds)]
    path = report.save("handlers", map(asdict, rounds), scores=[asdict(score) for score in scores])
    _show(load, scores)
    print(f"written to {path}", file=sys.stderr)
    return 0 if met(scores) else 1


def met(scores: Sequence[Score]) -> bool:
    """Whether this Floodgate does what is asked beside grammY."""
    seconds = {score.contender: score.plain_seconds for score in scores}
    most = seconds[GRAMMY] * MOST_TIMES_GRAMMY if GRAMMY in seconds else float("inf")
    ours = [score for score in scores if score.contender.startswith(f"{CURRENT.name},")]
    return all(
        not each.failed and not each.disorder and each.plain_seconds <= most and each.later <= MOST_LATER
        for each in ours
    )


def _show(load: Load, scores: Sequence[Score]) -> None:
    grammy = next((score.plain_seconds for score in scores if score.contender == GRAMMY), None)
    report.table(
        f"{load.users} users write at once, handlers wait {load.work_seconds:g} s, and {load.slow_seconds:g} s for the "
        f"slow chat; medians of seconds. At most {MOST_TIMES_GRAMMY:g} times grammY's",
        [
            "",
            "all answered",
            "× grammY",
            "p50",
            "beside a slow chat",
            "the slow one",
            "out of order",
            "lost or doubled",
        ],
        [
            [
                score.contender,
                score.plain_seconds,
                score.plain_seconds / grammy if grammy else None,
                score.p50_seconds,
                score.beside_slow_seconds,
                score.slow_seconds,
                score.disorder,
                score.failed,
            ]
            for score in scores
        ],
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks handlers", description=__doc__)
    parser.add_argument("--users", type=int, default=1000, help="who write at once (default: %(default)s)")
    parser.add_argument("--work", type=float, default=5.0, help="seconds of a handler (default: %(default)s)")
    parser.add_argument("--slow", type=float, default=60.0, help="seconds of the slow chat's (default: %(default)s)")
    parser.add_argument("--who", nargs="+", metavar="WORD", help="contenders whose names hold one of these")
    parser.add_argument("--rounds", type=int, default=3, help="of each (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="one short round with 200 users; for development")
    return parser
