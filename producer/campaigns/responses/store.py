"""Keeps how recipients responded, in SQL: once for each recipient and kind.

A response belongs to the recipients of its chat in the bot's open campaigns: those that run or ended within the window,
and at most :data:`MOST_OPEN`. A press and a reply count if the campaign sent that message. A start and a block count if
the chat got its message within the window before; so that they can be compared, they also count for a chat that was
held out, from the start of the campaign. Responses to a message that was edited count for the campaign that sent it.

Recipients are found by the unique index on campaign and chat, so responses need no other index on recipients.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import Connection, Row, Select, String, column, func, join, or_, outerjoin, select, values

from floodgate.producer.campaigns.content.recipient_codes import RecipientCode
from floodgate.producer.campaigns.responses.responses import Response, ResponseKind
from floodgate.producer.campaigns.states import CampaignState, RecipientState
from floodgate.producer.campaigns.storage.database import Database
from floodgate.producer.campaigns.storage.recipient_rows import insert_new
from floodgate.producer.campaigns.storage.tables import campaigns, recipients, responses

# The latest ones of a bot. Bounds what a response costs.
MOST_OPEN: Final = 50
# Chats that are looked up at once.
LOOK_UP: Final = 500
_BEGUN: Final = (CampaignState.RUNNING, CampaignState.PAUSED, CampaignState.STOPPED)


class ResponseStore:
    """The responses in a campaigns' database. Thread-safe, as the database is.

    Any method raises ``StateUnavailableError`` if the database is unavailable.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def close(self) -> None:
        """Close the database. Safe to call twice."""
        self._database.close()

    def add(self, code: RecipientCode, kind: ResponseKind, at_ms: int) -> None:
        """Record a recipient's response."""
        with self._database.writing() as db:
            insert_new(db, responses, [_values(code.campaign, code.number, kind, at_ms)])

    def record(self, found: Sequence[Response], window: timedelta) -> Sequence[Response]:
        """Record those that are responses to open campaigns. Return those that cannot be judged yet, because how the
        recipient's job ended has not been recorded."""
        by_bot: defaultdict[str, list[Response]] = defaultdict(list)
        for response in found:
            by_bot[response.bot].append(response)
        rows: list[dict[str, int]] = []
        undecided: list[Response] = []
        with self._database.reading() as db:
            for bot, its in by_bot.items():
                _judge(db, _open_campaigns(db, bot, its, window), its, window, rows, undecided)
        if rows:
            with self._database.writing() as db:
                insert_new(db, responses, rows)
        return undecided

    def tally(
        self, campaign: int
    ) -> tuple[Mapping[tuple[int, RecipientState], int], Mapping[tuple[int, ResponseKind], int]]:
        """Count a campaign's recipients by variant and state, and by variant and response those who got the message or
        were held out."""
        c, number = recipients.c, func.count()
        states = select(c.variant, c.state, number).where(c.campaign == campaign).group_by(c.variant, c.state)
        its = (responses.c.campaign == c.campaign) & (responses.c.recipient == c.number)
        kinds = (
            select(c.variant, responses.c.kind, number)
            .select_from(join(responses, recipients, its))
            .where(responses.c.campaign == campaign, c.state.in_((RecipientState.SENT, RecipientState.HELD_OUT)))
            .group_by(c.variant, responses.c.kind)
        )
        with self._database.reading() as db:
            return (
                {(variant, RecipientState(state)): found for variant, state, found in db.execute(states)},
                {(variant, ResponseKind(kind)): found for variant, kind, found in db.execute(kinds)},
            )


def _open_campaigns(db: Connection, bot: str, found: Sequence[Response], window: timedelta) -> Mapping[int, int]:
    """Return the start of each open campaign of a bot, by its id. Corrections are none: they send nothing."""
    since_ms = min(response.at_ms for response in found) - _ms(window)
    statement = (
        select(campaigns.c.id, campaigns.c.started_ms)
        .where(campaigns.c.bot == bot, campaigns.c.started_ms.is_not(None), campaigns.c.corrects.is_(None))
        .where(or_(campaigns.c.state.in_(_BEGUN), campaigns.c.ended_ms >= since_ms))
        .order_by(campaigns.c.id.desc())
        .limit(MOST_OPEN)
    )
    return {row.id: row.started_ms for row in db.execute(statement)}


def _judge(
    db: Connection,
    started_ms: Mapping[int, int],
    found: Sequence[Response],
    window: timedelta,
    recorded: list[dict[str, int]],
    undecided: list[Response],
) -> None:
    """Sort a bot's responses into those to record and those that cannot be judged yet."""
    rows = _rows_by_chat(db, started_ms, {chat for response in found for chat in response.chats})
    for response in found:
        waits = False
        for row in (row for chat in response.chats for row in rows.get(chat, ())):
            since_ms = started_ms[row.campaign] if row.state == RecipientState.HELD_OUT else row.released_ms
            if since_ms is None or not since_ms <= response.at_ms <= since_ms + _ms(window):
                continue
            if row.state == RecipientState.RELEASED:
                waits = True
            elif _is_response(response, row):
                recorded.append(_values(row.campaign, row.number, response.kind, response.at_ms))
        if waits:
            undecided.append(response)


def _rows_by_chat(db: Connection, open_: Iterable[int], chats: Iterable[str]) -> Mapping[str, Sequence[Row[Any]]]:
    by_chat: defaultdict[str, list[Row[Any]]] = defaultdict(list)
    ids, keys = list(open_), sorted(chats)
    if not ids:
        return by_chat
    for start in range(0, len(keys), LOOK_UP):
        for row in db.execute(recipients_of(ids, keys[start : start + LOOK_UP])):
            if row.number is not None:
                by_chat[row.chat].append(row)
    return by_chat


def recipients_of(open_: Sequence[int], chats: Sequence[str]) -> Select[Any]:
    """Return the statement that finds the recipients of chats in campaigns. A chat without any has a row of nulls.

    It names the chats in a table and joins from the left: with ``chat IN (…)``, SQLite reads all rows of a campaign.
    """
    c, wanted = recipients.c, values(column("chat", String), name="wanted").data([(chat,) for chat in chats]).cte()
    found = outerjoin(wanted, recipients, (c.chat == wanted.c.chat) & c.campaign.in_(open_))
    return select(c.campaign, c.number, c.chat, c.state, c.message_id, c.released_ms).select_from(found)


def _is_response(response: Response, row: Row[Any]) -> bool:
    if row.state not in (RecipientState.SENT, RecipientState.HELD_OUT):
        return False
    if response.code is not None:
        return response.code == RecipientCode(row.campaign, row.number)
    return response.message_id is None or response.message_id == row.message_id


def _values(campaign: int, number: int, kind: ResponseKind, at_ms: int) -> dict[str, int]:
    return {"campaign": campaign, "recipient": number, "kind": kind, "at_ms": at_ms}


def _ms(span: timedelta) -> int:
    return int(span / timedelta(milliseconds=1))
