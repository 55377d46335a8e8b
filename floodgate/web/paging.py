"""Pages of a list: which one a URL asks for, and its rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import Request

PER_PAGE: Final = 50
MOST_PAGES: Final = 20_000

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ListPage(Generic[T]):
    """One page of a list. ``total`` is None if the list is not counted."""

    number: int
    rows: Sequence[T]
    has_more: bool
    total: int | None = None

    @property
    def first(self) -> int:
        """The place in the list of the first row, from 1."""
        return (self.number - 1) * PER_PAGE + 1


def number_of(request: Request) -> int:
    """Return the number of the page that a URL asks for, from 1.

    Raises:
        HTTPException: 400, because it is not a number of a page.
    """
    given = request.query_params.get("page", "1")
    if not given.isascii() or not given.isdecimal() or len(given) > 6 or not 1 <= int(given) <= MOST_PAGES:
        raise HTTPException(400, f"{given[:20]!r} is not the number of a page: write 1 to {MOST_PAGES}.")
    return int(given)


def sliced(rows: Sequence[T], number: int) -> ListPage[T]:
    """Return a page of a list that is at hand."""
    start = (number - 1) * PER_PAGE
    return ListPage(number, rows[start : start + PER_PAGE], len(rows) > start + PER_PAGE, len(rows))


def read_ahead(rows: Sequence[T], number: int) -> ListPage[T]:
    """Return a page whose rows were read with one more, which tells whether there is another page."""
    return ListPage(number, rows[:PER_PAGE], len(rows) > PER_PAGE)
