"""Completes a paragraph that is still being written, so that it parses as its writer means it.

What was begun is closed, and what cannot be understood yet is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from floodgate.producer.streaming.text.markdown.parser import closers

_BACKTICKS: Final = re.compile(r"\\.|`+", re.DOTALL)
# A link whose label or destination has no end yet; it is shown as its label.
_LINK: Final = re.compile(r"!?\[((?:[^\[\]\\]|\\.)*)(?:\](?:\((?:[^()\s]|\([^()\s]*\)?)*(?:\s[^()]*)?)?)?$", re.DOTALL)
_AUTOLINK: Final = re.compile(r"<((?:[a-z][a-z0-9+.-]*:[^\s<>]*)?)$", re.IGNORECASE)
_MARKER: Final = re.compile("[*_~]")
_LAST_MARKERS: Final = re.compile(r"(?<!\\)[*_~\s]+$")
# A last line that may become anything: a list, a heading, a rule, a table, a code fence.
_UNDECIDED_LINE: Final = re.compile(r"[ \t>]*(?:[-+*=_#~`|:> \t]*|\d{1,9}[.)]?[ \t]*)")


def completed(content: str) -> str:
    """Return the content of a paragraph that goes on, completed."""
    content = _without_escape(content)
    code = list(_code_spans(content))
    if code and code[-1][1] is None:
        content = _with_closed_code(content, code[-1][0])
    else:
        content = _without_open_link(content, code)
        content = _LAST_MARKERS.sub("", content)
    return content + closers(content) if _MARKER.search(content) else content


def decided(source: str) -> str:
    """Return a text without the last line if it has no end and may yet become anything."""
    lines, newline, last = source.rpartition("\n")
    return lines + newline if _UNDECIDED_LINE.fullmatch(last) else source


def _without_escape(content: str) -> str:
    backslashes = len(content) - len(content.rstrip("\\"))
    return content[:-1] if backslashes % 2 else content


def _code_spans(content: str) -> Iterator[tuple[int, int | None]]:
    """Yield where code spans start and end. Only the last may have no end."""
    position = 0
    while found := _BACKTICKS.search(content, position):
        position = found.end()
        if found[0].startswith("\\"):
            continue
        end = re.compile(rf"(?<!`){found[0]}(?!`)").search(content, position)
        yield found.start(), end.end() if end else None
        if end is None:
            return
        position = end.end()


def _with_closed_code(content: str, start: int) -> str:
    before, code = content[:start], content[start:]
    fence = code[: len(code) - len(code.lstrip("`"))]
    inside = code[len(fence) :].rstrip("`")
    return before + fence + inside + fence if inside.strip() else before.rstrip()


def _without_open_link(content: str, code: list[tuple[int, int | None]]) -> str:
    for pattern in (_LINK, _AUTOLINK):
        found = pattern.search(content)
        if found and not any(start < found.start() < (end or len(content)) for start, end in code):
            content = content[: found.start()] + found[1]
    return content
