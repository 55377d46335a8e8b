"""``python -m tests.chaos``: inject random faults into the pipeline and account for every job.

Exit code 0 if no job was lost, repeated without cause, out of order or over a limit; otherwise 1.
"""

from __future__ import annotations

import argparse
import random
import sys

from rabbitmq_node.choice import VERSIONS
from tests.chaos.faults import Kind
from tests.chaos.run import Plan, render, run


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    faults = 0
    for redis in {"sqlite": (False,), "redis": (True,), "both": (False, True)}[options.state]:
        plan = Plan(
            seed,
            jobs=options.jobs,
            seconds=options.seconds,
            every=options.every,
            redis=redis,
            workers=options.workers,
            producers=options.producers,
            bot_per_second=options.bot_per_second,
            version=options.rabbitmq,
            without=frozenset(Kind(name) for name in options.without),
        )
        print(f"seed {seed}, state {'redis' if redis else 'sqlite'}", flush=True)
        result = run(plan, lambda line: print(line, flush=True), keep=options.keep)
        print(render(result), flush=True)
        faults += len(result.report.faults)
    return 1 if faults else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m tests.chaos", description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, help="of jobs and strokes; without it a new one, which is printed")
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=240.0, help="how long strokes fall (default: %(default)g)")
    parser.add_argument("--every", type=float, default=2.5, help="mean seconds between strokes (default: %(default)g)")
    parser.add_argument("--state", choices=("sqlite", "redis", "both"), default="sqlite")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--producers", type=int, default=3)
    parser.add_argument("--bot-per-second", type=int, default=90, help="the limit of the fake and of admission alike")
    parser.add_argument("--rabbitmq", choices=VERSIONS)
    parser.add_argument("--without", action="append", default=[], choices=list(Kind), help="leave out a kind of stroke")
    parser.add_argument("--keep", action="store_true", help="keep the evidence of a run that was in order, too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
