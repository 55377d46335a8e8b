"""Where a text that is too long for one message is cut.

The best bound within the second half of what fits: between paragraphs or beside a code block, else after a sentence or
a line, else between lines of code, else between words, else between characters. Where a chat shows the text up to a
bound already, that one is preferred, unless it is within a sentence or code and a better one exists.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from floodgate.producer.streaming.text.formatted import FormattedText, units

_PARAGRAPHS: Final = re.compile(r"\n\n+")
_SENTENCES: Final = re.compile(r"\n+|[.!?…]+[\"'”’»)\]]*\s+|[。！？]+[”’」』）]*")
_LINES: Final = re.compile(r"\n+")
_WORDS: Final = re.compile(r"\s+")
_LONGEST_CHARACTER: Final = 16  # code points that are looked at for one character on the screen, such as a family
_JOINER: Final = "\u200d"


def bound(text: FormattedText, limit: int) -> int:
    """Return where to cut a text whose beginning is to have at most ``limit`` UTF-16 code units."""
    most = _fitting(text.text, limit)
    ends = next(filter(None, _ends_by_rank(text, most // 2, most)), None)
    return max(ends) if ends else _between_characters(text.text, most)


def bound_after(text: FormattedText, shown: int, limit: int) -> int:
    """Return the best bound after the first ``shown`` characters of a text that still fits; 0 if there is none.

    It is in the second half of what fits. One within code or a sentence counts only if there is no better one at all.
    """
    # What ends where the text ends now may go on.
    paragraphs, sentences, lines, words = _ends_by_rank(text, _fitting(text.text, limit // 2), len(text.text) - 1)
    for ends in (paragraphs, sentences) if paragraphs or sentences else (lines or words,):
        if (end := max(ends, default=0)) > shown:
            return end
    return 0


def bound_at(text: FormattedText, shown: int, limit: int) -> int:
    """Return the bound right after the first ``shown`` characters and white space; 0 if there is none.

    Which bounds count is as for :func:`bound_after`.
    """
    least, most = _fitting(text.text, limit // 2), _fitting(text.text, limit)
    paragraphs, sentences, lines, words = _ends_by_rank(text, least, most)
    space = len(text.text) - len(text.text[shown:].lstrip())
    ends = [*paragraphs, *sentences] or lines or words
    return max((end for end in ends if shown <= end <= space), default=0)


def _ends_by_rank(text: FormattedText, least: int, most: int) -> tuple[list[int], ...]:
    """Return the bounds after ``least`` and up to ``most``: those of paragraphs, sentences, lines and words."""
    code = [(span.start, span.end) for span in text.spans if span.style.type == "pre"]
    paragraphs, sentences, lines, words = (
        [found.end() for found in pattern.finditer(text.text, least, most)]
        for pattern in (_PARAGRAPHS, _SENTENCES, _LINES, _WORDS)
    )
    beside = [end for block in code for end in block if least < end <= most]
    return [*_outside(code, paragraphs), *beside], _outside(code, sentences), lines, words


def _outside(code: list[tuple[int, int]], ends: list[int]) -> list[int]:
    return [end for end in ends if not any(start < end < stop for start, stop in code)]


def _fitting(text: str, limit: int) -> int:
    """Return how many code points have at most ``limit`` units."""
    if text.isascii():
        return min(len(text), limit)
    most = min(len(text), limit)
    while (excess := units(text[:most]) - limit) > 0:
        most -= (excess + 1) // 2
    return most


def _between_characters(text: str, most: int) -> int:
    """Return the last position up to ``most`` that separates no character from its accents, modifiers or joiners."""
    for position in range(most, max(most - _LONGEST_CHARACTER, 0), -1):
        if position >= len(text) or not (_extends(text[position]) or text[position - 1] == _JOINER):
            return position
    return most


def _extends(character: str) -> bool:
    return (
        unicodedata.category(character).startswith("M")
        or character == _JOINER
        or "\U0001f3fb" <= character <= "\U0001f3ff"
    )
