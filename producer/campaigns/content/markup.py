"""Checks markup as Telegram parses it, without asking Telegram: is it balanced, and how long is what remains?

Lengths are in UTF-16 code units, in which Telegram counts. When in doubt a text passes: Telegram has the last word.
Source: the Bot API's "Formatting options".
"""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Final

from floodgate.producer.campaigns.definition import TemplateMode

_TAGS: Final = frozenset(
    {
        *("a", "b", "blockquote", "code", "del", "em", "i", "ins", "pre", "s", "span", "strike", "strong", "tg-emoji"),
        *("tg-spoiler", "u"),
    }
)
# Longest first: `__` is underline, `_` italic.
_TOGGLES: Final = re.compile(r"\\.|```|\|\||__|[*_~`]|\[|\]\([^)\s]*\)", re.DOTALL)
_MARKS: Final = re.compile(r"\\(.)|```(?:\w+\n)?|\|\||__|[*_~`\[]|\]\([^)\s]*\)", re.DOTALL)


class UnbalancedError(ValueError):
    """The markup is not balanced; Telegram would refuse it."""


def visible_length(text: str, mode: TemplateMode) -> int:
    """Return the length of a text once its markup is parsed, in UTF-16 code units.

    Raises:
        UnbalancedError: an entity is not closed, closed without being open, or unknown.
    """
    match mode:
        case TemplateMode.HTML:
            parser = _Html()
            parser.feed(text)
            parser.close()
            return _units(parser.visible())
        case TemplateMode.MARKDOWN_V2:
            return _units(_markdown_visible(text))
        case _:
            return _units(text)


def _units(text: str) -> int:
    return len(text) + sum(character > "\uffff" for character in text) if not text.isascii() else len(text)


class _Html(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._open: list[str] = []
        self._parts: list[str] = []

    def handle_starttag(self, tag: str, _attributes: object) -> None:
        if tag not in _TAGS:
            raise UnbalancedError(f"<{tag}> is not a tag that Telegram knows")
        self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            raise UnbalancedError(f"</{tag}> closes a tag that is not open, or not the latest")

    def handle_data(self, data: str) -> None:
        self._parts.append(data)

    def visible(self) -> str:
        if self._open:
            raise UnbalancedError(f"<{self._open[-1]}> is not closed")
        return "".join(self._parts)


def _markdown_visible(text: str) -> str:
    open_: list[str] = []
    for found in _TOGGLES.finditer(text):
        mark = found[0]
        if mark.startswith("\\"):
            continue
        if open_ and open_[-1] in ("`", "```"):  # in code, only its own end counts
            if mark == open_[-1]:
                open_.pop()
        elif mark.startswith("]"):
            if not open_ or open_.pop() != "[":
                raise UnbalancedError("a link ends that has not begun")
        elif open_ and open_[-1] == mark:
            open_.pop()
        elif mark in open_:
            raise UnbalancedError(f"{mark} closes an entity while {open_[-1]} is still open")
        else:
            open_.append(mark)
    if open_:
        raise UnbalancedError(f"{open_[-1]} is not closed")
    return _MARKS.sub(lambda found: found[1] or "", text)
