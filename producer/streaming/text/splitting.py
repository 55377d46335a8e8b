"""Where a text that is too long for one message is cut.

The best bound within the second half of what fits: between paragraphs or beside a code block, else after a sentence or
a line, else between lines of code, else between words, else between characters.
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
    code = [(span.start, span.end) for span in text.spans if span.style.type == "pre"]
    found = (
        max(_last(_PARAGRAPHS, text.text, most, code), _beside(code, most))
        or _last(_SENTENCES, text.text, most, code)
        or _last(_LINES, text.text, most)
        or _last(_WORDS, text.text, most)
    )
    return found or _between_characters(text.text, most)


def _fitting(text: str, limit: int) -> int:
    """Return how many code points have at most ``limit`` units."""
    if text.isascii():
        return min(len(text), limit)
    most = min(len(text), limit)
    while (excess := units(text[:most]) - limit) > 0:
        most -= (excess + 1) // 2
    return most


def _last(pattern: re.Pattern[str], text: str, most: int, code: list[tuple[int, int]] | None = None) -> int:
    """Return the end of the pattern's last match in the second half that is in no code block; 0 if there is none."""
    ends = (found.end() for found in pattern.finditer(text, most // 2, most))
    return max((end for end in ends if not any(start < end < stop for start, stop in code or ())), default=0)


def _beside(code: list[tuple[int, int]], most: int) -> int:
    return max((end for block in code for end in block if most // 2 < end <= most), default=0)


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
