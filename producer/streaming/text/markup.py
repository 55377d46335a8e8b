"""What the readers of Telegram's own markups share: text whose constructs are opened and closed by name."""

from __future__ import annotations

from floodgate.producer.streaming.text.formatted import FormattedText, StyledSpan, TextStyle


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
        copied._open = [(name, style, 0) for name, style, _ in self._open]
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

    @property
    def innermost(self) -> str:
        """The construct that was opened last; empty if none is open."""
        return self._open[-1][0] if self._open else ""

    def restyle(self, name: str, style: TextStyle) -> None:
        """Change the style of an open construct."""
        self._open = [(n, style if n == name else given, start) for n, given, start in self._open]

    def close(self, name: str) -> bool:
        """End the innermost construct of a name. Return False if none is open."""
        for position in range(len(self._open) - 1, -1, -1):
            if self._open[position][0] == name:
                _, style, start = self._open.pop(position)
                self._style(start, style)
                return True
        return False

    def take(self) -> FormattedText:
        """Return what was collected since the last call. What is open goes on in the next."""
        for _, style, start in self._open:
            self._style(start, style)
        taken = FormattedText("".join(self._texts), tuple(self._spans))
        self._open = [(name, style, 0) for name, style, _ in self._open]
        self._texts, self._spans, self._length = [], [], 0
        return taken

    def _style(self, start: int, style: TextStyle | None) -> None:
        if style and start < self._length:
            self._spans.append(StyledSpan(start, self._length, style))
