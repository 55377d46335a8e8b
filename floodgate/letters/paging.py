"""Lists of a state store read by the page, and ages as people write them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Final, TypeVar

T = TypeVar("T")

PAGE: Final = 1000


def each_once(read: Callable[[int, int], Sequence[T]], key: Callable[[T], str], limit: int) -> list[T]:
    """The first ``limit`` of a list, the latest first, by ``read(limit, offset)``. What is new meanwhile moves the
    others on: each is taken once."""
    found: dict[str, T] = {}
    for offset in range(0, limit, PAGE):
        page = read(min(PAGE, limit - offset), offset)
        for one in page:
            found.setdefault(key(one), one)
        if len(page) < min(PAGE, limit - offset):
            break
    return list(found.values())


def ago(age: timedelta) -> str:
    """As in ``3 h``."""
    seconds = age.total_seconds()
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
