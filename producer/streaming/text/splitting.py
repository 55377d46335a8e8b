"""Where a text that is too long for one message is cut.

The best bound within the second half of what fits: between paragraphs or beside a code block, else after a sentence or
a line, else between lines of code, else between words, else between characters.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
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
    most = fitting(text.text, limit)
    ends = next(filter(None, _ends_by_rank(text, most // 2, most)), None)
    return max(ends) if ends else _between_characters(text.text, most)


def bound_after(text: FormattedText, shown: int, limit: int) -> int:
    """Return where a text may end so that it shows more than its first ``shown`` characters; 0 if nowhere.

    It may end at the best bound that is new, if that is in the second half of what fits. It ends within code or within
    a sentence only if there is no better bound at all.
    """
    # What ends where the text ends now may go on.
    paragraphs, sentences, lines, words = _ends_by_rank(text, fitting(text.text, limit // 2), len(text.text) - 1)
    for ends in (paragraphs, sentences) if paragraphs or sentences else (lines or words,):
        if (end := max(ends, default=0)) > shown:
            return end
    return 0


def bound_at(text: FormattedText, shown: int, limit: int) -> int:
    """Return the bound right after the first ``shown`` characters, white space aside, if :func:`bound_after` would have
    taken one there; else 0."""
    paragraphs, sentences, lines, words = _ends_by_rank(text, fitting(text.text, limit // 2), fitting(text.text, limit))
    space = len(text.text) - len(text.text[shown:].lstrip())
    ends = [*paragraphs, *sentences] or lines or words
    return max((end for end in ends if shown <= end <= space), default=0)


def _ends_by_rank(text: FormattedText, least: int, most: int) -> Iterator[list[int]]:
    """Find the bounds after ``least`` and up to ``most``: those of paragraphs, sentences, lines and words."""
    code = [(span.start, span.end) for span in text.spans if span.style.type == "pre"]
    beside = [end for block in code for end in block]
    paragraphs, sentences = (
        [end for end in _ends(pattern, text.text, least, most) if not any(start < end < stop for start, stop in code)]
        for pattern in (_PARAGRAPHS, _SENTENCES)
    )
    yield [*paragraphs, *(end for end in beside if least < end <= most)]
    yield sentences
    yield _ends(_LINES, text.text, least, most)
    yield _ends(_WORDS, text.text, least, most)


def fitting(text: str, limit: int) -> int:
    """Return how many code points have at most ``limit`` units."""
    if text.isascii():
        return min(len(text), limit)
    most = min(len(text), limit)
    while (excess := units(text[:most]) - limit) > 0:
        most -= (excess + 1) // 2
    return most


def _ends(pattern: re.Pattern[str], text: str, least: int, most: int) -> list[int]:
    return [found.end() for found in pattern.finditer(text, least, most)]


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
