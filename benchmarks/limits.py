"""Use of the limit, 429s, latency and order under Telegram's limits, Floodgate beside its peers and the former worker.

Each scenario is played against a fake Telegram of its own that judges strict sliding windows at arrival and answers in
80 to 120 ms. Contenders of one scenario play side by side (``--side-by-side``), or one after the other.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks import plot
from benchmarks.peers.contenders import PEERS
from benchmarks.stage import report, servers
from benchmarks.stage.contenders import Contender, Floodgate
from benchmarks.stage.editions import editions
from benchmarks.stage.play import Result, play
from benchmarks.stage.scenarios import Scenario, scenarios

OURS: Final = (
    Floodgate(1, "sqlite"),
    Floodgate(2, "sqlite"),
    Floodgate(3, "sqlite"),
    Floodgate(10, "sqlite"),
    Floodgate(2, "redis"),
    Floodgate(3, "redis"),
)
FIGURES: Final = ("use", "rate", "429", "in 1 s", "disorder", "missing", "doubled")
EXTRA: Final = (
    "first 429 at s",
    "reply p50 s",
    "reply p99 s",
    "reply max s",
    "answered p99 s",
    "group a minute",
    "into pauses early",
    "into pauses late",
    "in 0.25 s after",
)


def main(arguments: Sequence[str]) -> int:
    """Play; 0 when ours met every target."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.plot and options.only and plot.SCENARIO not in options.only:
        parser.error(f"--plot shows the scenario {plot.SCENARIO!r}, which --only leaves out")
    chosen = [each for each in scenarios(options.quick) if not options.only or each.name in options.only]
    if options.partitions:
        chosen = [replace(each, settings={**each.settings, "partitions": options.partitions}) for each in chosen]
    if options.former:
        chosen = [replace(each, former=True) for each in chosen]
    ours = [replace(each, edition=edition) for each in OURS for edition in editions()]
    field = [each for each in (*ours, *PEERS) if not options.who or any(word in each.name for word in options.who)]
    began = time.monotonic()
    results: list[Result] = []
    with servers.rabbitmq() as rabbitmq_url, servers.redis() as redis_url:
        for scenario in chosen:
            players = [each for each in field if each.plays(scenario)]
            at_once = 1 if scenario.alone else options.side_by_side
            rounds = [
                list(_play_all(scenario, players, rabbitmq_url, redis_url, at_once)) for _ in range(options.rounds)
            ]
            found = [Result.median(of_one) for of_one in zip(*rounds, strict=True)]
            results += [result for round_ in rounds for result in round_]
            _show(scenario, found, as_json=options.json)
    path = report.save("limits", (result.as_json() for result in results))
    print(f"{time.monotonic() - began:.0f} s in all; written to {path}", file=sys.stderr)
    if options.plot:
        options.plot.write_text(plot.draw_run(json.loads(path.read_text())))
    return 0 if not any(result.missed for result in results if result.contender.startswith("floodgate")) else 1


def _play_all(
    scenario: Scenario, players: Sequence[Contender], rabbitmq_url: str, redis_url: str, at_once: int
) -> Iterable[Result]:
    with ThreadPoolExecutor(at_once, thread_name_prefix="benchmark-contender") as threads:
        yield from threads.map(partial(play, scenario, rabbitmq_url=rabbitmq_url, redis_url=redis_url), players)


def _show(scenario: Scenario, results: Sequence[Result], *, as_json: bool) -> None:
    if as_json:
        for result in results:
            print(json.dumps(result.as_json()), flush=True)
        return
    columns = [*FIGURES, *(name for name in EXTRA if any(name in result.figures for result in results))]
    rows = [
        [result.contender, *(result.figures.get(name) for name in columns), "; ".join(result.missed) or "-"]
        for result in results
    ]
    report.table(f"{scenario.name}: {scenario.about}", ["", *columns, "missed"], rows)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("benchmarks limits", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer messages; for development")
    parser.add_argument("--only", nargs="+", metavar="SCENARIO", help="of these names")
    parser.add_argument("--who", nargs="+", metavar="WORD", help="contenders whose names hold one of these")
    parser.add_argument("--former", action="store_true", help="the former worker in every scenario, not in three")
    parser.add_argument("--rounds", type=int, default=1, help="of each scenario; tables show medians")
    parser.add_argument(
        "--side-by-side", type=int, default=1, metavar="N", help="so many contenders of a scenario at once"
    )
    parser.add_argument(
        "--partitions", type=int, metavar="N", help="instead of the scenario's, to find the right number"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw rate and 429s of the broadcast")
    parser.add_argument("--json", action="store_true", help="one object a line instead of tables")
    return parser
