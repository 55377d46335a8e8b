"""Servers that fail under load: the longest pause, the slowest enqueue, and what was lost, doubled or disordered.

Two workers send what one client enqueues at 20 jobs a second to a Bot API that enforces Telegram's limits. Each row
breaks one server in one way, and is judged by its targets. ``benchmarks/failures`` has the rows.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Final

from benchmarks.failures import cluster, lost_writes, redis_failover
from benchmarks.failures.play import Result, play
from benchmarks.failures.row import Failure
from benchmarks.stage import report

# Each has ROWS, and `stop` for what its rows share.
MODULES: Final[dict[str, ModuleType]] = {"cluster": cluster, "redis": redis_failover, "lost-writes": lost_writes}
COLUMNS: Final = (
    "pause s",
    "after s",
    "enqueue s",
    "wait s",
    "unsent 10 s",
    "accepted",
    "lost",
    "doubled",
    "disordered",
)


def main(arguments: Sequence[str]) -> int:
    """Play; 0 if every row met its targets."""
    options = _parser().parse_args(arguments)
    rows = [row for name in options.servers or MODULES for row in MODULES[name].ROWS if _wanted(row, options.only)]
    if options.list:
        for row in rows:
            print(f"{row.name}: {', '.join(map(str, row.targets))}")
        return 0
    if options.rabbitmq:
        cluster.SHARED.version = options.rabbitmq
    with _stopping():
        results = [_told(play(row)) for row in rows for _ in range(options.rounds) if _possible(row)]
    path = report.save("faults", (result.as_json() for result in results), rabbitmq=options.rabbitmq)
    _show(results, as_json=options.json)
    print(f"written to {path}", file=sys.stderr)
    return 1 if any(result.missed for result in results) else 0


def _wanted(row: Failure, words: Sequence[str]) -> bool:
    return not words or any(word in row.name for word in words)


def _possible(row: Failure) -> bool:
    if (reason := row.why_not()) is not None:
        print(f"{row.name}: left out, because {reason}", file=sys.stderr)
    return reason is None


def _told(result: Result) -> Result:
    print(f"{result.row}: {', '.join(result.missed) or 'all targets met'}", file=sys.stderr, flush=True)
    return result


@contextlib.contextmanager
def _stopping() -> Iterator[None]:
    try:
        yield
    finally:
        for module in MODULES.values():
            module.stop()


def _show(results: Sequence[Result], *, as_json: bool) -> None:
    if as_json:
        for result in results:
            print(json.dumps(result.as_json()), flush=True)
        return
    lines = [
        [result.row, *(result.figures.get(name) for name in COLUMNS), ", ".join(result.missed)] for result in results
    ]
    report.table("servers that fail under load", ["", *COLUMNS, "missed"], lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks faults", description=__doc__)
    parser.add_argument("servers", nargs="*", choices=[[], *MODULES], metavar="SERVER", help=f"of {', '.join(MODULES)}")
    parser.add_argument("--only", action="append", default=[], metavar="WORDS", help="rows whose name has these words")
    parser.add_argument("--rounds", type=int, default=1, help="how often each row is played")
    parser.add_argument("--rabbitmq", help="the RabbitMQ version")
    parser.add_argument("--list", action="store_true", help="name the rows and their targets, and play none")
    parser.add_argument("--json", action="store_true", help="one object a line instead of a table")
    return parser
