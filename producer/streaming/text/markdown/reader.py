"""Reads Markdown that arrives in pieces.

A block of the highest level has settled when the next one has begun: in CommonMark, what follows changes only the last
block. (Until the next block has two complete lines, these may still turn into a part of the block before them.) So a
read parses the last blocks only, and of these only the paragraphs that have changed: the other items of a list, for
example, are not parsed again. A block longer than :data:`LONGEST_BLOCK` settles in pieces, which bounds the work of a
read.
"""

from __future__ import annotations

import re
from typing import Final

from markdown_it.token import Token

from floodgate.producer.streaming.text.formatted import FormattedText, joined
from floodgate.producer.streaming.text.markdown.parser import parse_blocks
from floodgate.producer.streaming.text.markdown.rendering import BlockRenderer, blocks, code_style, render_inline
from floodgate.producer.streaming.text.markdown.unfinished import completed, decided

LONGEST_BLOCK: Final = 8192  # characters
_LONGEST_INFO: Final = 64  # what stands after an opening code fence: its language
# Where a block that is too long is divided, in this order: at the next item of a list, a line, a word.
_DIVISIONS: Final = tuple(re.compile(pattern) for pattern in (r"\n(?=\S)", r"\n", r"[ \t]"))
_LEAVES: Final = frozenset({"inline", "fence", "code_block", "hr"})


class MarkdownReader:
    """Reads CommonMark with tables and strikethrough."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._source = ""  # what has not settled
        self._separator: FormattedText | None = (
            None  # between what has settled and the rest; None before the first block
        )
        self._rendered: dict[str, FormattedText] = {}  # paragraphs of the last read

    def feed(self, piece: str) -> None:
        """Accept the next piece."""
        self._pieces.append(piece)

    def read(self, *, final: bool) -> tuple[FormattedText, FormattedText]:
        """Return what has settled since the last call, and what is provisional."""
        self._source += "".join(self._pieces).replace("\r", "")
        self._pieces.clear()
        settled, provisional = self._read_blocks(settle=final, going_on=not final)
        while len(self._source) > LONGEST_BLOCK:
            beginning = self._divide_block()
            more, provisional = self._read_blocks(settle=False, going_on=True)
            settled = joined((settled, beginning, more))
        return settled, provisional

    def _divide_block(self) -> FormattedText:
        """Settle the beginning of a block that is too long, and let the rest begin another."""
        end = _division(self._source)
        beginning, rest = self._source[:end], self._source[end:]
        fence = _open_fence(beginning)
        self._source = beginning
        settled, _ = self._read_blocks(settle=True, going_on=True)
        separator = FormattedText(beginning[-1] if beginning[-1].isspace() else "")
        if fence:
            self._source = fence.markup + fence.info[:_LONGEST_INFO] + "\n" + rest
            separator = FormattedText("\n" if separator.text == "\n" else "").styled(code_style(fence.info))
        else:
            self._source = rest
        self._separator = separator
        return settled

    def _read_blocks(self, *, settle: bool, going_on: bool) -> tuple[FormattedText, FormattedText]:
        """Parse what has not settled.

        Args:
            settle: all of it settles.
            going_on: the last paragraph may go on.
        """
        source = self._source if settle else decided(self._source)
        lines = source.split("\n")
        found = list(blocks(parse_blocks(source)))
        still_open = _open_paragraph(found, lines) if going_on else None
        number_settled = len(found) if settle else _number_settled(found, complete_lines=len(lines) - 1)
        settled: list[FormattedText] = []
        provisional: list[FormattedText] = []
        separator = self._separator
        before, self._rendered = self._rendered, {}

        def inline(token: Token) -> FormattedText:
            if token is still_open:
                return render_inline(completed(token.content))
            text = before.get(token.content) or render_inline(token.content)
            self._rendered[token.content] = text
            return text

        renderer = BlockRenderer(lines, inline)
        for number, block in enumerate(found):
            if number and separator is not None:
                separator = max(separator, FormattedText(renderer.separator(_line(block))), key=_length)
            if number == number_settled:
                self._separator = separator
            if (text := renderer.render(block)).text:
                pieces = settled if number < number_settled else provisional
                pieces += [separator or FormattedText(), text]
                separator = FormattedText()
        if settle:
            self._source = ""
        elif number_settled:
            self._source = self._source[sum(len(line) + 1 for line in lines[: _line(found[number_settled])]) :]
        return joined(settled), joined(provisional)


def _length(text: FormattedText) -> int:
    return len(text.text)


def _line(block: list[Token]) -> int:
    """Return the line on which a block starts."""
    return block[0].map[0] if block[0].map else 0


def _number_settled(found: list[list[Token]], *, complete_lines: int) -> int:
    return max((number for number, block in enumerate(found) if _line(block) + 1 < complete_lines), default=0)


def _open_paragraph(found: list[list[Token]], lines: list[str]) -> Token | None:
    """Return the content of the paragraph, heading or cell that the next piece may continue."""
    tokens = [token for token in found[-1] if token.type != "inline" or token.content] if found else []
    leaves = [number for number, token in enumerate(tokens) if token.type in _LEAVES]
    if not leaves or tokens[leaves[-1]].type != "inline" or _ended(tokens[leaves[-1] - 1], lines):
        return None
    return tokens[leaves[-1]]


def _ended(opening: Token, lines: list[str]) -> bool:
    """Whether what the token opens has ended: a paragraph with a blank line, all others with their line."""
    at_line_start = not lines[-1].strip()
    return at_line_start and (opening.type != "paragraph_open" or not "".join(lines[-2:-1]).strip(" \t>"))


def _division(source: str) -> int:
    """Return where to divide a source that is too long: in its second half."""
    for pattern in _DIVISIONS:
        if ends := [found.end() for found in pattern.finditer(source, len(source) // 2)]:
            return ends[-1]
    return len(source)


def _open_fence(source: str) -> Token | None:
    """Return the code fence that is open at the end of a source."""
    last = parse_blocks(source)[-1:]
    if not last or last[0].type != "fence" or not last[0].map:
        return None
    first, end = last[0].map
    is_closed = end - first == len(last[0].content.splitlines()) + 2
    return None if is_closed else last[0]
