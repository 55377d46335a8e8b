"""Formatted text: what a message shows and how, independent of any markup.

Positions are in code points, as in Python's strings. Only entities and lengths count UTF-16 code units, as Telegram
does.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

MessageEntity = dict[str, Any]
"""An object of the Bot API."""

_CODE: Final = frozenset({"code", "pre"})
_QUOTES: Final = frozenset({"blockquote", "expandable_blockquote"})
# These may contain each other. Of all others, which Telegram does not let contain each other, the innermost counts.
_NESTING: Final = frozenset({"bold", "italic", "underline", "strikethrough", "spoiler"})


class TextStyle(NamedTuple):
    """A kind of formatting."""

    type: str
    """As in the Bot API's MessageEntity."""
    details: tuple[tuple[str, str | int], ...] = ()
    """The entity's other fields, such as ``url``."""


class StyledSpan(NamedTuple):
    """Where a style applies: from ``start`` up to ``end``, which is not included."""

    start: int
    end: int
    style: TextStyle


@dataclass(frozen=True, slots=True)
class FormattedText:
    """A text and the styles of its parts, in any order and with any overlap."""

    text: str = ""
    spans: tuple[StyledSpan, ...] = ()

    def __add__(self, other: FormattedText) -> FormattedText:
        return joined((self, other))

    def cut(self, start: int, end: int | None = None) -> FormattedText:
        """Return the part from ``start`` up to ``end``, with its styles."""
        stop = len(self.text) if end is None else min(end, len(self.text))
        if (start, stop) == (0, len(self.text)):
            return self
        spans = (StyledSpan(max(s, start) - start, min(e, stop) - start, style) for s, e, style in self.spans)
        return FormattedText(self.text[start:stop], tuple(span for span in spans if span.start < span.end))

    def styled(self, style: TextStyle) -> FormattedText:
        """Return the text with one more style, which applies to all of it."""
        return FormattedText(self.text, (StyledSpan(0, len(self.text), style), *self.spans))

    def entities(self) -> list[MessageEntity]:
        """Return the styles as the Bot API expects them: in order, and each two apart or one within the other."""
        offsets = _Utf16Offsets(self.text)
        found: list[MessageEntity] = []
        for start, end, style in sorted(_nested(self.spans), key=lambda span: (span.start, -span.end)):
            if self.text[start:end].strip():
                offset = offsets[start]
                details = dict(style.details)
                found.append({"type": style.type, "offset": offset, "length": offsets[end] - offset, **details})
        return found


def joined(pieces: Iterable[FormattedText]) -> FormattedText:
    """Return texts as one."""
    shown = [piece for piece in pieces if piece.text]
    if len(shown) == 1:
        return shown[0]
    texts: list[str] = []
    spans: list[StyledSpan] = []
    length = 0
    for piece in shown:
        texts.append(piece.text)
        spans.extend(StyledSpan(start + length, end + length, style) for start, end, style in piece.spans)
        length += len(piece.text)
    return FormattedText("".join(texts), tuple(spans))


def units(text: str) -> int:
    """Return the length of a text in UTF-16 code units."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le")) // 2


class _Utf16Offsets:
    """Converts ascending positions to UTF-16 code units."""

    def __init__(self, text: str) -> None:
        self._wide = [at for at, character in enumerate(text) if character > "\uffff"] if not text.isascii() else []

    def __getitem__(self, position: int) -> int:
        return position + bisect_left(self._wide, position)


def _nested(spans: tuple[StyledSpan, ...]) -> Iterator[StyledSpan]:
    """Join adjacent spans of one style, and split overlapping ones so that each two are apart or nested."""
    group: list[StyledSpan] = []
    group_end = 0
    for span in sorted(_united(spans)):
        if span.start >= group_end:
            yield from _disentangled(group)
            group = []
        group.append(span)
        group_end = max(group_end, span.end)
    yield from _disentangled(group)


def _united(spans: tuple[StyledSpan, ...]) -> Iterator[StyledSpan]:
    last: dict[TextStyle, StyledSpan] = {}
    for span in sorted(spans):
        before = last.get(span.style)
        if before and span.start <= before.end:
            last[span.style] = StyledSpan(before.start, max(before.end, span.end), span.style)
        else:
            last[span.style] = span
            yield from (before,) if before else ()
    yield from last.values()


def _disentangled(spans: list[StyledSpan]) -> Iterator[StyledSpan]:
    if len(spans) < 2:
        yield from spans
        return
    open_: list[tuple[int, TextStyle]] = []
    for at in sorted({bound for span in spans for bound in (span.start, span.end)}):
        wanted = _compatible([span.style for span in spans if span.start <= at < span.end])
        kept = _number_kept([style for _, style in open_], wanted)
        yield from (StyledSpan(began, at, style) for began, style in open_[kept:])
        del open_[kept:]
        still_open = {style for _, style in open_}
        open_.extend((at, style) for style in wanted if style not in still_open)


def _number_kept(open_: list[TextStyle], wanted: list[TextStyle]) -> int:
    """Return how many of the open styles go on: none inside one that ends, and none around a quotation."""
    if wanted and wanted[0].type in _QUOTES and wanted[0] not in open_:
        return 0
    return next((number for number, style in enumerate(open_) if style not in wanted), len(open_))


def _compatible(styles: list[TextStyle]) -> list[TextStyle]:
    """Return those of the styles that Telegram can apply to the same character, the outermost first."""
    styles = list(dict.fromkeys(styles))
    quotes = [style for style in styles if style.type in _QUOTES][:1]
    if code := [style for style in styles if style.type in _CODE]:
        return [*quotes, code[-1]]
    others = [style for style in styles if style.type not in _NESTING | _QUOTES][-1:]
    return [*quotes, *others, *(style for style in styles if style.type in _NESTING)]
