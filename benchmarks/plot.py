"""Draws rate and 429s of a run of ``limits`` as an SVG, on paper of its own: legible on light and dark pages.

``python -m benchmarks plot RESULTS.json FILE.svg``. Takes what ``limits`` wrote to ``benchmarks/results/``.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks.stage.figures import LIMIT

SCENARIO: Final = "broadcast"
STYLE: Final = """
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.head { font-weight: 600 }
.paper { fill: #ffffff }
.note { fill: #59636e }
.ours { fill: #2f7d4f }
.peer { fill: #8c959f }
.limit { stroke: #59636e; stroke-dasharray: 3 3 }
@media (prefers-color-scheme: dark) {
  .paper { fill: #0d1117 } text { fill: #f0f6fc } .note { fill: #9198a1 }
  .ours { fill: #3fb26b } .limit { stroke: #9198a1 }
}
"""
WIDTH: Final = 776
ROW: Final = 26
TOP: Final = 58
RATE_LEFT, RATE_WIDE, REFUSED_LEFT, REFUSED_WIDE = 172, 240, 512, 200


@dataclass(frozen=True, slots=True)
class Row:
    """One contender: the rate it kept, None when too few messages arrived to tell, and the 429s it was answered."""

    contender: str
    rate: float | None
    refused: int
    missing: int
    messages: int

    @classmethod
    def of(cls, contender: str, rounds: Sequence[Mapping[str, float]]) -> Row:
        """The median of each figure."""
        found = {name: median(each.get(name, 0.0) for each in rounds) for name in ("use", "429", "missing", "sent")}
        missing, sent = int(found["missing"]), int(found["sent"])
        return cls(contender, found["use"] * LIMIT or None, int(found["429"]), missing, missing + sent)

    @property
    def rate_text(self) -> str:
        rate = f"{self.rate:.1f}" if self.rate else ""
        lost = f"{self.messages - self.missing:,} of {self.messages:,} delivered" if self.missing else ""
        return ", ".join(filter(None, (rate, lost)))


def rows(results: Iterable[Mapping[str, Any]]) -> list[Row]:
    """The contenders of the broadcast, in the order in which they played."""
    rounds: defaultdict[str, list[Mapping[str, float]]] = defaultdict(list)
    for result in results:
        if result["scenario"] == SCENARIO:
            rounds[result["contender"]].append(result["figures"])
    return [Row.of(contender, figures) for contender, figures in rounds.items()]


def draw(results: Iterable[Mapping[str, Any]], note: str) -> str:
    """The SVG, with ``note`` below.

    Raises:
        ValueError: the run has no broadcast.
    """
    found = rows(results)
    if not found:
        raise ValueError(f"This run has no scenario {SCENARIO!r}, which is what the plot shows.")
    fastest, most = max(LIMIT, *(row.rate or 0 for row in found)), max(1, *(row.refused for row in found))
    bottom = TOP + ROW * len(found)
    limit = RATE_LEFT + RATE_WIDE * LIMIT / fastest
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom + 34}" role="img">',
            "<title>Messages a second and answers 429 in a broadcast</title>",
            f"<style>{STYLE}</style>",
            '<rect class="paper" width="100%" height="100%" rx="6"/>',
            _text(RATE_LEFT, 24, "messages a second", "head"),
            _text(REFUSED_LEFT, 24, "answers 429 (fewer are better)", "head"),
            _text(limit, 46, f"limit: {LIMIT:.0f}", "note", anchor="middle"),
            f'<line class="limit" x1="{limit:.0f}" x2="{limit:.0f}" y1="50" y2="{bottom}"/>',
            *(line for number, row in enumerate(found) for line in _row(row, TOP + ROW * number, fastest, most)),
            _text(16, bottom + 24, note, "note"),
            "</svg>\n",
        ]
    )


def _row(row: Row, top: int, fastest: float, most: int) -> list[str]:
    kind = "ours" if row.contender.startswith("floodgate") else "peer"
    rate, refused = (row.rate or 0) / fastest * RATE_WIDE, row.refused / most * REFUSED_WIDE
    return [
        _text(RATE_LEFT - 8, top + 14, row.contender, anchor="end"),
        f'<rect class="{kind}" x="{RATE_LEFT}" y="{top}" width="{rate:.1f}" height="18"/>',
        _text(RATE_LEFT + rate + 10, top + 14, row.rate_text),
        f'<rect class="{kind}" x="{REFUSED_LEFT}" y="{top}" width="{refused:.1f}" height="18"/>',
        _text(REFUSED_LEFT + refused + 10, top + 14, f"{row.refused:,}"),
    ]


def _text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    style = f' class="{kind}"' if kind else ""
    return f'<text{style} x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}">{escape(words)}</text>'


def draw_run(run: Mapping[str, Any]) -> str:
    """The SVG of a run as ``limits`` saves it, dated and with its machine."""
    machine = run["machine"]
    lowest, highest = min(machine["load"]), max(machine["load"])
    note = f"{run['date']}, {machine['cores']} cores, load averages of {lowest:.0f} to {highest:.0f}"
    return draw(run["results"], note)


def main(arguments: Sequence[str]) -> int:
    """Draw; 0 when the file is written."""
    parser = argparse.ArgumentParser("benchmarks plot", description=__doc__)
    parser.add_argument("results", type=Path, metavar="RESULTS.json")
    parser.add_argument("file", type=Path, metavar="FILE.svg")
    options = parser.parse_args(arguments)
    options.file.write_text(draw_run(json.loads(options.results.read_text())))
    return 0
