"""The README answers a newcomer's questions in order, with the figures of the performance page."""

from __future__ import annotations

import re

from tests.docs.pages import ROOT, blocks

README = ROOT / "README.md"
PERFORMANCE = ROOT / "docs" / "performance.md"
ORDER = ["Install", "Send", "See it work", "Guarantees", "Performance", "When not to use it"]


def test_the_readme_begins_with_a_newcomers_first_questions() -> None:
    text = README.read_text()
    assert re.match(r"# Floodgate\n\n\*\*[^*\n]+\*\*\n\n## ", text), "the promise, in one sentence, comes first"
    assert re.findall(r"^## (.+)$", text, flags=re.MULTILINE)[: len(ORDER)] == ORDER


def test_ten_lines_send_a_message() -> None:
    first = next(block for block in blocks(README) if block.language == "python")
    assert len(first.text.splitlines()) <= 10


def test_the_readmes_figures_match_the_performance_page() -> None:
    shown = README.read_text().partition("Without limits, ")[2].partition("\n\n")[0]
    figures = re.findall(r"\d[\d,.]*\d", shown)
    page = PERFORMANCE.read_text()
    assert len(figures) == 4
    assert [figure for figure in figures if figure not in page] == []


def test_the_figures_at_the_top_of_the_page_match_its_tables() -> None:
    top, _, measured = PERFORMANCE.read_text().partition("\n## ")
    figures = re.findall(r"\[(\d[\d,.]*) [^\]]*\]\(#", top)
    assert len(figures) == 3
    assert [figure for figure in figures if figure not in measured] == []
