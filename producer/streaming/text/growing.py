"""A text that grows, and the messages that show it.

A reader divides what was written into what has settled, which no later piece changes, and what is provisional. The
messages are cut from both. A message is complete once the text has outgrown it, and it never changes afterwards, even
in the rare case that a later piece changes the meaning of the provisional text that it shows (a ``*`` that was taken
for the start of emphasis and has no end).

Where messages are edited, a message should end where the chat shows it already: then the text goes on in the next one
without another edit of the first. To that end :attr:`GrowingText.prospect` withholds the last words of a message that
will soon be full.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Literal, Protocol

from floodgate.broker.errors import InvalidParamsError
from floodgate.producer.streaming.text.formatted import FormattedText, MessageEntity, units
from floodgate.producer.streaming.text.html import HtmlReader
from floodgate.producer.streaming.text.markdown_v2 import MarkdownV2Reader
from floodgate.producer.streaming.text.splitting import bound, bound_after, bound_at

Formatting = Literal["plain", "markdown", "HTML", "MarkdownV2"]
"""How a growing text is written: as it is shown, in the Markdown of language models, or in a markup of Telegram's."""

MAX_UNITS: Final = 4096
"""Length of the longest message, in UTF-16 code units, once its markup is parsed. Source: the Bot API's sendMessage."""
MIN_UNITS: Final = 16
FORESIGHT: Final = 1.25
"""How much a text is expected to grow until it is shown again, as a part of what it has grown since it was shown."""
# Telegram replaces these by spaces.
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")
_MARKS: Final = frozenset("*_~`[]()!#>|-+•\\<&;")  # what a markup may hide


@dataclass(frozen=True, slots=True)
class TextPart:
    """One message's worth of a text.

    Attributes:
        text: for the Bot API's ``text``, without a ``parse_mode``. It is never blank.
        entities: for the Bot API's ``entities``; may be empty.
        complete: no later piece changes it.
    """

    text: str
    entities: list[MessageEntity]
    complete: bool

    @property
    def params(self) -> dict[str, Any]:
        """The parameters of sendMessage, editMessageText and sendMessageDraft that describe the text."""
        return {"text": self.text, "entities": self.entities} if self.entities else {"text": self.text}


class TextReader(Protocol):
    """Reads a markup that arrives in pieces."""

    def feed(self, piece: str) -> None:
        """Accept the next piece."""

    def read(self, *, final: bool) -> tuple[FormattedText, FormattedText]:
        """Return what has settled since the last call, and what is provisional.

        Args:
            final: nothing follows; all of the text settles.
        """


class _PlainReader:
    def __init__(self) -> None:
        self._pieces: list[str] = []

    def feed(self, piece: str) -> None:
        self._pieces.append(piece)

    def read(self, *, final: bool) -> tuple[FormattedText, FormattedText]:
        text = "".join(self._pieces)
        self._pieces.clear()
        return FormattedText(text.replace("\r", "")), FormattedText()


class GrowingText:
    """A text that arrives in pieces, as messages that Telegram accepts in each state.

    Not thread-safe. Its memory grows with the text: the messages that are complete are kept.
    """

    def __init__(self, formatting: Formatting = "plain", limit: int = MAX_UNITS) -> None:
        """Create an empty text.

        Args:
            formatting: how the pieces are written. Any text is accepted: what is not valid markup is shown as it is.
            limit: the longest message, in UTF-16 code units, from 16 to 4,096.

        Raises:
            InvalidParamsError: the formatting is unknown or needs a package that is not installed, or the limit is
                out of range.
        """
        if not MIN_UNITS <= limit <= MAX_UNITS:
            raise InvalidParamsError(f"limit is {limit}: use {MIN_UNITS} to {MAX_UNITS}.")
        self._reader = _reader(formatting)
        self._limit = limit
        self._decoder = codecs.getincrementaldecoder("utf-16-le")("replace")
        self._complete: list[TextPart] = []
        self._settled = FormattedText()  # not yet in a complete part
        self._shown = ""  # of the provisional text, what is in a complete part
        self._last: TextPart | None = None
        self._tail = FormattedText()  # what the last part shows
        self._on_screen: TextPart | None = None  # of the last part
        self._changed = False
        self._finished = False

    def append(self, piece: str) -> None:
        """Add the next piece, of any length.

        Raises:
            ValueError: the text is finished.
        """
        if self._finished:
            raise ValueError("The text is finished: nothing can be appended.")
        self._feed(self._joined_surrogates(piece))

    @property
    def parts(self) -> tuple[TextPart, ...]:
        """The messages that show the text as it is now. All but the last are complete."""
        if self._changed:
            self._update(final=False)
        return self._all()

    def note_shown(self, part: TextPart) -> None:
        """Note what the chat shows of the last part. Once the text has outgrown it, it ends there, if it may."""
        self._on_screen = part

    @property
    def prospect(self) -> TextPart | None:
        """The last part up to where it may end, if the text will probably have outgrown it when it is shown again.

        None if it has room for as much as has come since it was shown, and a quarter more; or if it may end nowhere
        after what the chat shows.
        """
        shown, length = self._on_screen, units(self._tail.text)
        grown = length - units(shown.text) if shown is not None else 0
        if shown is None or length + grown * FORESIGHT <= self._limit:
            return None
        text = _trimmed(self._tail.cut(0, bound_after(self._tail, len(shown.text), self._limit)))
        return TextPart(text.text, text.entities(), complete=False) if len(text.text) > len(shown.text) else None

    def finish(self) -> tuple[TextPart, ...]:
        """Return the messages that show the whole text, all of them complete. May be called again."""
        if not self._finished:
            self._feed(self._decoder.decode(b"", final=True))
            self._finished = True
            self._update(final=True)
        return self._all()

    def _joined_surrogates(self, piece: str) -> str:
        """Join characters that were cut in two, as some programs do with emoji, and replace lone halves."""
        if piece.isascii() and not self._decoder.getstate()[0]:
            return piece
        return self._decoder.decode(piece.encode("utf-16-le", "surrogatepass"))

    def _feed(self, piece: str) -> None:
        self._reader.feed(_CONTROLS.sub(" ", piece))
        self._changed = True

    def _all(self) -> tuple[TextPart, ...]:
        return (*self._complete, self._last) if self._last else tuple(self._complete)

    def _update(self, *, final: bool) -> None:
        self._changed = False
        settled, provisional = self._reader.read(final=final)
        read = settled + provisional
        unshown = _position_after(self._shown, read.text)
        self._shown = read.text[len(settled.text) : unshown]
        settled_length = len(self._settled.text) + max(len(settled.text) - unshown, 0)
        rest = self._settled + read.cut(unshown)
        while units((tail := _trimmed(rest)).text) > self._limit:
            end = rest.text.index(tail.text) + (self._end_of_shown(tail) or bound(tail, self._limit))
            self._complete_part(_trimmed(rest.cut(0, end)))
            self._shown += rest.text[settled_length:end]
            settled_length = max(settled_length - end, 0)
            rest = rest.cut(end)
        self._settled = rest.cut(0, settled_length)
        self._show(tail, complete=final)

    def _end_of_shown(self, tail: FormattedText) -> int:
        """Return where the part ends if nothing that the chat shows of it is to change; 0 if it cannot end there."""
        if (shown := self._on_screen) is None or not tail.text.startswith(shown.text):
            return 0
        as_shown = tail.cut(0, len(shown.text)).entities() == shown.entities
        return bound_at(tail, len(shown.text), self._limit) if as_shown else 0

    def _complete_part(self, text: FormattedText) -> None:
        if not _blank(text.text):
            self._complete.append(TextPart(text.text, text.entities(), complete=True))
        self._last = self._on_screen = None

    def _show(self, tail: FormattedText, *, complete: bool) -> None:
        self._tail = tail
        if not _blank(tail.text):
            self._last = TextPart(tail.text, tail.entities(), complete)
        elif self._last and complete:  # what it showed turned out to be markup; a message cannot become empty
            self._last = TextPart(self._last.text, self._last.entities, complete)


def _trimmed(text: FormattedText) -> FormattedText:
    """Return the text without the blank lines before it and the white space after it."""
    start = len(text.text) - len(text.text.lstrip("\n"))
    return text.cut(start, max(len(text.text.rstrip()), start))


def _blank(text: str) -> bool:
    return not any(not c.isspace() and unicodedata.category(c) not in ("Cc", "Cf") for c in text)


def _position_after(shown: str, text: str) -> int:
    """Return the length of the beginning of ``text`` that shows the same as ``shown``, except for markup."""
    if text.startswith(shown):
        return len(shown)
    before = after = 0
    while before < len(shown) and after < len(text):
        if shown[before] == text[after]:
            before, after = before + 1, after + 1
        elif text[after] in _MARKS or text[after].isspace():
            after += 1
        elif shown[before] in _MARKS or shown[before].isspace():
            before += 1
        else:
            before, after = before + 1, after + 1
    return after


def _markdown() -> TextReader:
    try:
        from floodgate.producer.streaming.text.markdown.reader import MarkdownReader
    except ModuleNotFoundError:
        raise InvalidParamsError(
            "formatting 'markdown' needs markdown-it-py, which is not installed: install telegram-floodgate[markdown]."
        ) from None
    return MarkdownReader()


_READERS: Final[Mapping[str, Callable[[], TextReader]]] = MappingProxyType(
    {"plain": _PlainReader, "markdown": _markdown, "HTML": HtmlReader, "MarkdownV2": MarkdownV2Reader}
)


def _reader(formatting: str) -> TextReader:
    if formatting not in _READERS:
        known = ", ".join(_READERS)
        raise InvalidParamsError(f"formatting {formatting[:40]!r} is unknown: use one of {known}.")
    return _READERS[formatting]()
