"""Links between pages are valid, and every page is in the site's navigation."""

from __future__ import annotations

import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import FENCE, ROOT, anchors

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
ELSEWHERE = ("https://", "http://", "mailto:")


def pages() -> list[Path]:
    """Every page of the repository, including uncommitted ones; in an archive, every page in it."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    found = listed.stdout.split() if listed.returncode == 0 else []
    return [ROOT / name for name in found] or [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


def prose(text: str) -> str:
    """A page without its code blocks and code spans."""
    parts = re.split(rf"^\s*{FENCE}.*$", text, flags=re.MULTILINE)
    return re.sub(r"`[^`\n]*`", "", "".join(parts[::2]))


def broken(page: Path) -> Iterator[str]:
    """The links of a page without an existing file or heading."""
    for link in LINK.findall(prose(page.read_text())):
        if link.startswith(ELSEWHERE):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors(target.read_text())):
            yield link


def in_navigation(entries: list[dict[str, Any]]) -> list[str]:
    """The pages in the site's navigation, in order."""
    values = [value for entry in entries for value in entry.values()]
    return [page for value in values for page in (in_navigation(value) if isinstance(value, list) else [value])]


@pytest.mark.checkout
@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_has_an_existing_file_and_heading(page: Path) -> None:
    assert list(broken(page)) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("[a](gone.md)", ["gone.md"]),
        ("[a](there.md#gone)", ["there.md#gone"]),
        ("[a](#gone)", ["#gone"]),
        ("# Once\n# Once\n[a](there.md#one--two) [b](#once-1) [c](https://example.org) `[d](gone.md)`", []),
        ("```\n[a](gone.md)\n```\n![plot](gone.svg)", ["gone.svg"]),
    ],
)
def test_a_broken_link_is_found(tmp_path: Path, text: str, found: list[str]) -> None:
    (tmp_path / "there.md").write_text("## `One` & two\n")
    page = tmp_path / "page.md"
    page.write_text(text)
    assert list(broken(page)) == found


def test_every_page_is_in_the_sites_navigation() -> None:
    site = tomllib.loads((ROOT / "docs" / "zensical.toml").read_text())["project"]
    expected = {str(page.relative_to(ROOT)) for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]}
    assert set(in_navigation(site["nav"])) == expected


def test_the_site_is_built_without_broken_links() -> None:
    built = subprocess.run([ROOT / "scripts" / "docs"], capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    assert '<script src="http' not in (ROOT / "site" / "index.html").read_text(), "the site loads what is not its own"
