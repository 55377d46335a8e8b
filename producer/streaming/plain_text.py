"""A stand-in for the growing text: plain text, split at the limit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Formatting = Literal["plain", "markdown", "HTML", "MarkdownV2"]


@dataclass(frozen=True, slots=True)
class Part:
    """A message's text in one state."""

    text: str
    entities: list[dict[str, Any]] | None = None
    parse_mode: str | None = None
    complete: bool = False


class GrowingText:
    """Text that grows at its end."""

    def __init__(self, formatting: Formatting = "plain", limit: int = 4096) -> None:
        self._limit = limit
        self._text = ""
        self._finished = False

    def append(self, piece: str) -> None:
        """Add a piece."""
        self._text += piece

    @property
    def parts(self) -> tuple[Part, ...]:
        """The messages' texts in the present state."""
        starts = range(0, len(self._text), self._limit)
        last = len(starts) - 1
        return tuple(
            Part(self._text[start : start + self._limit], complete=self._finished or number < last)
            for number, start in enumerate(starts)
        )

    def finish(self) -> tuple[Part, ...]:
        """Return the final texts."""
        self._finished = True
        return self.parts
