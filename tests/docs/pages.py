"""The headings and code blocks of a page, and the commands of a console block. Pure: ``test_snippets`` runs them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

ROOT = Path(__file__).parents[2]
FENCE = "```"
PROMPT = "$ "


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: the line its text begins on, the words after the fence, and the text."""

    page: str
    line: int
    language: str
    words: tuple[str, ...]
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True, slots=True)
class Command:
    """A command and its expected output; empty if the page shows none."""

    text: str
    expected: str


def pages() -> list[Path]:
    """All pages with blocks."""
    found = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [page for page in found if FENCE in page.read_text()]


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings as GitHub makes them: a repeated heading has its ordinal appended."""
    outside = "".join(re.split(rf"^\s*{FENCE}.*$", text, flags=re.MULTILINE)[::2])
    seen: Counter[str] = Counter()
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", outside, flags=re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return found


def blocks(page: Path) -> list[Block]:
    """The blocks of a page, in order.

    Raises:
        ValueError: a fence is not closed.
    """
    return list(_blocks(str(page.relative_to(ROOT)), page.read_text()))


def _blocks(name: str, text: str) -> Iterator[Block]:
    lines = iter(enumerate(text.splitlines(), start=1))
    for number, line in lines:
        if not line.lstrip().startswith(FENCE):
            continue
        language, *words = line.strip().removeprefix(FENCE).split() or [""]
        body: list[str] = []
        for _, inner in lines:
            if inner.strip() == FENCE:
                break
            body.append(inner)
        else:
            raise ValueError(f"{name}:{number}: this fence is not closed")
        yield Block(name, number + 1, language, tuple(words), dedent("\n".join(body)))


def commands(text: str) -> list[Command]:
    """The commands of a console block: a line after ``$ ``, continued after a backslash, followed by its output."""
    found: list[tuple[list[str], list[str]]] = []
    for line in text.splitlines():
        if line.startswith(PROMPT):
            found.append(([line.removeprefix(PROMPT)], []))
        elif not found:
            raise ValueError(f"a console block begins with {PROMPT!r}, not with {line!r}")
        elif found[-1][0][-1].endswith("\\"):
            found[-1][0].append(line)
        else:
            found[-1][1].append(line)
    return [Command("\n".join(words), "\n".join(output).strip()) for words, output in found]
