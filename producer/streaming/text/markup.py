"""What the readers of Telegram's own markups share: text whose constructs are opened and closed by name."""

from __future__ import annotations

from typing import Final

from floodgate.producer.streaming.text.formatted import FormattedText, StyledSpan, TextStyle

_EARLIER: Final = -1  # where a construct starts that shows something in an earlier read


class MarkedText:
    """Collects what a markup shows. A construct may be open across any number of reads."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._length = 0
        self._spans: list[StyledSpan] = []
        self._open: list[tuple[str, TextStyle | None, int]] = []
        self.at_line_start = True

    def copy(self) -> MarkedText:
        """Return a copy of what is open, of which nothing has been collected."""
        copied = MarkedText()
        copied._open = self._carried_on()
        copied.at_line_start = self.at_line_start
        return copied

    def add(self, text: str) -> None:
        """Append what is shown."""
        if text:
            self._texts.append(text)
            self._length += len(text)
            self.at_line_start = text.endswith("\n")

    def open(self, name: str, style: TextStyle | None) -> None:
        """Begin a construct, which may have no style."""
        self._open.append((name, style, self._length))

    def is_open(self, name: str) -> bool:
        """Whether a construct is open."""
        return any(name == open_ for open_, _, _ in self._open)

    def just_opened(self, name: str) -> bool:
        """Whether a construct was opened last, and shows nothing yet."""
        return bool(self._open) and (self._open[-1][0], self._open[-1][2]) == (name, self._length)

    def restyle(self, name: str, style: TextStyle) -> None:
        """Change the style of the innermost construct of a name, which is open."""
        position = self._innermost(name)
        self._open[position] = (name, style, self._open[position][2])

    def close(self, name: str) -> bool:
        """End the innermost construct of a name. Return False if none is open."""
        if (position := self._innermost(name)) < 0:
            return False
        _, style, start = self._open.pop(position)
        self._style(start, style)
        return True

    def take(self) -> FormattedText:
        """Return what was collected since the last call. What is open goes on in the next."""
        for _, style, start in self._open:
            self._style(start, style)
        taken = FormattedText("".join(self._texts), tuple(self._spans))
        self._open = self._carried_on()
        self._texts, self._spans, self._length = [], [], 0
        return taken

    def _carried_on(self) -> list[tuple[str, TextStyle | None, int]]:
        return [(name, style, 0 if start == self._length else _EARLIER) for name, style, start in self._open]

    def _innermost(self, name: str) -> int:
        return max((position for position, (open_, _, _) in enumerate(self._open) if open_ == name), default=-1)

    def _style(self, start: int, style: TextStyle | None) -> None:
        if style and max(start, 0) < self._length:
            self._spans.append(StyledSpan(max(start, 0), self._length, style))
