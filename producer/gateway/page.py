"""Generates the table of methods in docs/gateway.md. Update it with: python -m floodgate.producer.gateway.page"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from floodgate.producer.gateway.routes import TABLE, MethodRoute

PAGE: Final = Path("docs/gateway.md")  # in the repository, which is the working directory
HEAD: Final = "| | why | methods |\n|---|---|---|\n"


def table() -> str:
    """Generate the table, with one row for each route and reason."""
    groups: dict[tuple[str, str], list[MethodRoute]] = {}
    for row in TABLE.values():
        groups.setdefault((row.route, row.why), []).append(row)
    lines = [f"| {route} | {why} | {_names(rows)} |\n" for (route, why), rows in sorted(groups.items(), reverse=True)]
    return HEAD + "".join(lines)


def _names(rows: list[MethodRoute]) -> str:
    return " ".join(f"`{row.method}`" for row in rows)


def page() -> str:
    """Generate the whole page with an up-to-date table."""
    before, _, _ = PAGE.read_text().partition(HEAD)
    return f"{before}{table()}"


if __name__ == "__main__":
    PAGE.write_text(page())
