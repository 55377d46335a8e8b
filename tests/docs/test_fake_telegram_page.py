"""Every snippet of ``docs/fake-telegram.md`` runs, and its tables name what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fake_telegram.scenarios import ChatTrouble, FaultKind

PAGE = (Path(__file__).parents[2] / "docs" / "fake-telegram.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_a_snippet_runs(snippet: str) -> None:
    exec(compile(snippet, "docs/fake-telegram.md", "exec"), {"__name__": "snippet"})


def test_every_trouble_and_every_fault_is_described() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| `")]
    named = set(re.findall(r"`(\w+)`", " ".join(row.split("|")[1] for row in rows)))
    assert {*ChatTrouble, *FaultKind} <= named
