"""Numbers as short text: bars, sparklines, counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

_LEVELS: Final = "▁▂▃▄▅▆▇█"


def bar(share: float, width: int) -> str:
    """Draw a share from 0 to 1 as a bar."""
    full = round(min(1.0, max(0.0, share)) * width)
    return "█" * full + "░" * (width - full)


def sparkline(values: Sequence[float], top: float) -> str:
    """Draw the values, one character each; ``top`` is the highest level."""
    highest = len(_LEVELS) - 1
    return "".join(_LEVELS[min(highest, round(value / top * highest))] if top > 0 else _LEVELS[0] for value in values)


def count(number: int) -> str:
    """Format a count in at most seven characters below a thousand million."""
    return f"{number:,}" if number < 1_000_000 else f"{number / 1_000_000:.1f}M"
