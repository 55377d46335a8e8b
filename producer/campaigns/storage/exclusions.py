"""Leaves chats out of an audience while it is imported, batch by batch and in constant memory.

Refused rows are counted by reason, with one sample each, and at most :data:`MOST_REASONS` reasons.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from sqlalchemy import ColumnElement, Connection, Insert, delete, insert, select

from floodgate.broker.errors import CampaignError
from floodgate.producer.campaigns.audience.rows import AudienceRow, Candidate, RefusedRow
from floodgate.producer.campaigns.states import RecipientState
from floodgate.producer.campaigns.storage.chat_lookup import select_by_chat
from floodgate.producer.campaigns.storage.recipient_rows import insert_new
from floodgate.producer.campaigns.storage.tables import campaigns, excluded, recipients, refused_rows, unsubscribed

MOST_REASONS: Final = 100
# An import ends if more rows than these, and most of its rows, are malformed.
MOST_MALFORMED: Final = 100_000
# Chats that are looked up at once.
LOOKED_UP: Final = 1000

TWICE: Final = "the chat is in the audience already"
EXCLUDED: Final = "it is excluded"
SENT_BEFORE: Final = "an excluded campaign was sent to the chat"
UNSUBSCRIBED: Final = "the chat has unsubscribed"
UNREACHABLE: Final = "the chat is known to be unreachable"

Among = Callable[[Sequence[str]], Iterable[str]]
"""Returns those of up to :data:`LOOKED_UP` chats that are left out."""


class Refusals:
    """Counts refused rows by reason."""

    def __init__(self) -> None:
        self._rows = 0
        self._malformed = 0
        self._numbers: Counter[str] = Counter()
        self._first: dict[str, tuple[int, str]] = {}

    def add(self, why: str, line: int, sample: str) -> None:
        """Count a row. The first of each reason is the sample."""
        if why not in self._first and len(self._first) >= MOST_REASONS:
            why = "another reason"
        self._numbers[why] += 1
        self._first.setdefault(why, (line, sample))

    def count(self, batch: Sequence[AudienceRow]) -> None:
        """Count the rows of a batch.

        Raises:
            CampaignError: more than :data:`MOST_MALFORMED` rows, and most of all rows, are malformed.
        """
        self._rows += len(batch)
        self._malformed += sum(isinstance(row, RefusedRow) for row in batch)
        if self._malformed > MOST_MALFORMED and self._malformed * 2 > self._rows:
            [(why, number)] = self._numbers.most_common(1)
            line, sample = self._first[why]
            raise CampaignError(
                f"The import has ended: {self._malformed} of the first {self._rows} rows are malformed, {number} "
                f"because {why}, the first in line {line} ({sample}). Is it the right audience?"
            )

    def inserts(self, campaign: int) -> Iterator[Insert]:
        """Yield the statements that record the counts."""
        for why, number in self._numbers.items():
            line, sample = self._first[why]
            yield insert(refused_rows).values(campaign=campaign, why=why, number=number, line=line, sample=sample)


def valid(batch: Sequence[AudienceRow], refused: Refusals) -> dict[str, Candidate]:
    """Return the valid rows of a batch by their chats, the first of each chat.

    Raises:
        CampaignError: too many rows are malformed.
    """
    candidates: dict[str, Candidate] = {}
    for row in batch:
        if isinstance(row, RefusedRow):
            refused.add(row.why, row.line, row.sample)
        elif row.chat in candidates:
            refused.add(TWICE, row.line, row.chat)
        else:
            candidates[row.chat] = row
    refused.count(batch)
    return candidates


def leave_out(candidates: dict[str, Candidate], refused: Refusals, why: str, among: Among) -> None:
    """Take out the candidates that ``among`` returns."""
    chats = list(candidates)
    for start in range(0, len(chats), LOOKED_UP):
        asked = chats[start : start + LOOKED_UP]
        found = frozenset(among(asked))
        for chat in asked:
            if chat in found:
                refused.add(why, candidates.pop(chat).line, chat)


class Exclusions:
    """The chats that are left out of one campaign's audience, as far as the database knows them.

    Excluded chats are kept in a table of their own while the audience is imported: a file of a million takes no memory.
    """

    def __init__(self, campaign: int, bot: str, earlier: Sequence[int]) -> None:
        self._campaign = campaign
        self._bot = bot
        self._earlier = earlier

    def add(self, db: Connection, chats: Iterable[str]) -> None:
        """Exclude chats."""
        values = [{"campaign": self._campaign, "chat": chat} for chat in chats]
        insert_new(db, excluded, values)

    def clear(self, db: Connection, most: int) -> bool:
        """Delete up to ``most`` excluded chats. Return whether that were all."""
        chats = select(excluded.c.chat).where(excluded.c.campaign == self._campaign).limit(most)
        found = db.execute(delete(excluded).where(excluded.c.campaign == self._campaign, excluded.c.chat.in_(chats)))
        return found.rowcount < most

    def leave_out(self, db: Connection, candidates: dict[str, Candidate], refused: Refusals) -> None:
        """Take out the candidates that are in the audience already, are excluded or have unsubscribed, and those to
        whom one of the earlier campaigns was sent, or may have been."""
        sent = (RecipientState.SENT, RecipientState.UNCERTAIN)
        for why, column, where in (
            (TWICE, recipients.c.chat, [recipients.c.campaign == self._campaign]),
            (EXCLUDED, excluded.c.chat, [excluded.c.campaign == self._campaign]),
            (UNSUBSCRIBED, unsubscribed.c.chat, [unsubscribed.c.bot == self._bot]),
            (SENT_BEFORE, recipients.c.chat, [recipients.c.campaign.in_(self._earlier), recipients.c.state.in_(sent)]),
        ):
            leave_out(candidates, refused, why, _those(db, column, where))


def find_campaigns(db: Connection, bot: str, names: Sequence[str]) -> Sequence[int]:
    """Return the ids of a bot's campaigns.

    Raises:
        CampaignError: the bot has no campaign of one of the names.
    """
    found = {
        row.name: row.id for row in db.execute(select(campaigns.c.name, campaigns.c.id).where(campaigns.c.bot == bot))
    }
    if unknown := [name for name in names if name not in found]:
        raise CampaignError(f"Bot {bot} has no campaign named {unknown[0]!r}: `floodgate campaigns list` shows them.")
    return [found[name] for name in names]


def _those(db: Connection, column: ColumnElement[str], where: Sequence[ColumnElement[bool]]) -> Among:
    def among(chats: Sequence[str]) -> Iterable[str]:
        return (row.chat for row in select_by_chat(db, select(column).where(*where), chats))

    return among
