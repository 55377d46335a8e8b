"""Paged reading of a state store's lists, and ages in short form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Final, TypeVar

T = TypeVar("T")

PAGE: Final = 1000


def each_once(read: Callable[[int, int], Sequence[T]], key: Callable[[T], str], limit: int) -> list[T]:
    """Return the first ``limit`` items of a list, latest first, read page by page with ``read(limit, offset)``.

    New items shift the others to later offsets while the pages are read; each item is returned once.
    """
    found: dict[str, T] = {}
    for offset in range(0, limit, PAGE):
        page = read(min(PAGE, limit - offset), offset)
        for one in page:
            found.setdefault(key(one), one)
        if len(page) < min(PAGE, limit - offset):
            break
    return list(found.values())


def ago(age: timedelta) -> str:
    """Return an age in short form, as in ``3 h``."""
    seconds = age.total_seconds()
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
