"""Leaves chats out of an audience while it is imported, batch by batch and in constant memory.

Refused rows are counted by reason, with one sample each, and at most :data:`MOST_REASONS` reasons.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from sqlalchemy import ColumnElement, Connection, Insert, insert, select

from floodgate.producer.campaigns.audience import AudienceRow, Candidate, RefusedRow
from floodgate.producer.campaigns.tables import recipients, refused_rows, unsubscribed

MOST_REASONS: Final = 100
# Chats that are looked up at once.
LOOKED_UP: Final = 1000

TWICE: Final = "the chat is in the audience already"
EXCLUDED: Final = "it is excluded"
UNSUBSCRIBED: Final = "the chat has unsubscribed"
UNREACHABLE: Final = "the chat is known to be unreachable"

Among = Callable[[Sequence[str]], Iterable[str]]
"""Returns those of up to :data:`LOOKED_UP` chats that are left out."""


class Refusals:
    """Counts refused rows by reason."""

    def __init__(self) -> None:
        self._numbers: Counter[str] = Counter()
        self._first: dict[str, tuple[int, str]] = {}

    def add(self, why: str, line: int, sample: str) -> None:
        """Count a row. The first of each reason is the sample."""
        if why not in self._first and len(self._first) >= MOST_REASONS:
            why = "another reason"
        self._numbers[why] += 1
        self._first.setdefault(why, (line, sample))

    def inserts(self, campaign: int) -> Iterator[Insert]:
        """Yield the statements that record the counts."""
        for why, number in self._numbers.items():
            line, sample = self._first[why]
            yield insert(refused_rows).values(campaign=campaign, why=why, number=number, line=line, sample=sample)


def valid(batch: Sequence[AudienceRow], refused: Refusals) -> dict[str, Candidate]:
    """Return the valid rows of a batch by their chats, the first of each chat."""
    candidates: dict[str, Candidate] = {}
    for row in batch:
        if isinstance(row, RefusedRow):
            refused.add(row.why, row.line, row.sample)
        elif row.chat in candidates:
            refused.add(TWICE, row.line, row.chat)
        else:
            candidates[row.chat] = row
    return candidates


def leave_out(candidates: dict[str, Candidate], refused: Refusals, why: str, among: Among) -> None:
    """Take out the candidates that ``among`` returns."""
    chats = list(candidates)
    for start in range(0, len(chats), LOOKED_UP):
        for chat in among(chats[start : start + LOOKED_UP]):
            refused.add(why, candidates.pop(chat).line, chat)


def leave_out_known(
    db: Connection, campaign: int, bot: str, candidates: dict[str, Candidate], refused: Refusals
) -> None:
    """Take out the candidates that are in the audience already or have unsubscribed."""
    leave_out(candidates, refused, TWICE, _those(db, recipients.c.chat, recipients.c.campaign == campaign))
    leave_out(candidates, refused, UNSUBSCRIBED, _those(db, unsubscribed.c.chat, unsubscribed.c.bot == bot))


def _those(db: Connection, column: ColumnElement[str], *where: ColumnElement[bool]) -> Among:
    def among(chats: Sequence[str]) -> Sequence[str]:
        return db.execute(select(column).distinct().where(*where, column.in_(chats))).scalars().all()

    return among
