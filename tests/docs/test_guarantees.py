"""Each guarantee names its proof: every test that README.md and docs/guarantees.md link to exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "guarantees.md"
README = ROOT / "README.md"
SECURITY = ROOT / "docs" / "security.md"
PROOF = re.compile(r"\[(test_\w+)\]\(([^)#\s]+)\)")


def proofs(page: Path) -> list[tuple[str, Path]]:
    """Test and file of each link on a page whose text is a test's name."""
    return [(name, (page.parent / path).resolve()) for name, path in PROOF.findall(page.read_text())]


@pytest.mark.parametrize("page", [PAGE, README, SECURITY], ids=lambda page: page.name)
def test_every_linked_test_exists(page: Path) -> None:
    gone = [name for name, file in proofs(page) if not file.is_file() or f"def {name}(" not in file.read_text()]
    assert not gone


def test_every_guarantee_links_to_tests_and_states_its_limits() -> None:
    promises = re.split(r"^## (?=\d)", PAGE.read_text(), flags=re.MULTILINE)[1:]
    assert len(promises) == 9
    for promise in promises:
        assert PROOF.search(promise), promise[:60]
        assert "What weakens it" in promise, promise[:60]


def test_the_readme_links_to_a_test_for_every_guarantee() -> None:
    table = README.read_text().partition("## Guarantees")[2].partition("\n\n[Guarantees]")[0]
    rows = [row for row in table.splitlines() if row.startswith("| ")]
    assert len(rows) == 10, "a heading and a row for each promise"
    assert all(PROOF.search(row) for row in rows[1:])
