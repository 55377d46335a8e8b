"""The table of methods in docs/gateway.md. Renew it with: python -m floodgate.producer.gateway.page"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from floodgate.producer.gateway.routes import TABLE, MethodRoute

PAGE: Final = Path("docs/gateway.md")  # in the repository, which is the working directory
HEADING: Final = "## Each method\n"


def table() -> str:
    """One line for each treatment and reason."""
    groups: dict[tuple[str, str], list[MethodRoute]] = {}
    for row in TABLE.values():
        groups.setdefault((row.route, row.why), []).append(row)
    lines = [f"| {fate} | {why} | {_names(rows)} |\n" for (fate, why), rows in sorted(groups.items(), reverse=True)]
    return "| | why | methods |\n|---|---|---|\n" + "".join(lines)


def _names(rows: list[MethodRoute]) -> str:
    return " ".join(f"`{row.method}`" for row in rows)


def page() -> str:
    """The whole page, with the table as it should be."""
    head, _, _ = PAGE.read_text().partition(HEADING)
    return f"{head}{HEADING}\n{table()}"


if __name__ == "__main__":
    PAGE.write_text(page())
