"""Results as a table for people and JSON for whoever compares runs."""

from __future__ import annotations

import json
import math
import os
import platform
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from rich.console import Console
from rich.table import Table

FOLDER: Final = Path(__file__).parents[1] / "results"


class Named(Protocol):
    """A round or a score of one contender."""

    @property
    def contender(self) -> str: ...


def names(results: Iterable[Named]) -> list[str]:
    """The contenders, each once, in the order in which they came."""
    return list(dict.fromkeys(result.contender for result in results))


def save(name: str, results: Iterable[Mapping[str, Any]], **more: Any) -> Path:
    """Write a run to ``benchmarks/results/`` (not under version control), with its date, the machine and its load."""
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{name}-{time.strftime('%Y%m%dT%H%M%S')}.json"
    run = {"date": time.strftime("%Y-%m-%d"), "machine": machine(), "results": list(results), **more}
    path.write_text(json.dumps(_finite(run), indent=1))
    return path


def _finite(value: Any) -> Any:
    """A value without infinities, which JSON has not: None stands for what never happened."""
    if isinstance(value, Mapping):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if value == math.inf else value


def machine() -> dict[str, Any]:
    return {"cores": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()}


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table; numbers are shown with three digits that count."""
    shown = Table(title=title, title_justify="left")
    for column in columns:
        shown.add_column(column, justify="left" if column == columns[0] else "right")
    for row in rows:
        shown.add_row(*(_text(value) for value in row))
    Console(width=max(160, Console().width)).print(shown)
    print("load averages", *(f"{load:.1f}" for load in os.getloadavg()))
    sys.stdout.flush()


def _text(value: object) -> str:
    if value == math.inf:
        return "never"
    if isinstance(value, float):
        return f"{value:.0f}" if value == int(value) or abs(value) >= 1000 else f"{value:.3g}"
    return "" if value is None else str(value)
