"""Looks up rows by many chats at once, so that each chat costs one search of an index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, Select, Text, bindparam, func, select, true
from sqlalchemy.dialects.postgresql import ARRAY


def select_by_chat(db: Connection, statement: Select[Any], chats: Sequence[str]) -> Sequence[Row[Any]]:
    """Return the rows of a statement that have one of the chats in its first column, ``chat``.

    PostgreSQL knows little of a table that is being filled, and would read a campaign's whole audience for each
    ``IN``. So there the statement is carried out for one chat after another: it is lateral, and its OFFSET keeps the
    planner from joining it in any other way.
    """
    chat = statement.selected_columns[0]
    if db.dialect.name != "postgresql":
        return db.execute(statement.where(chat.in_(chats))).all()
    asked = (
        func.unnest(bindparam("chats", list(chats), ARRAY(Text))).table_valued("chat", name="asked").render_derived()
    )
    found = statement.where(chat == asked.c.chat).offset(0).lateral()
    return db.execute(select(found).select_from(asked.join(found, true()))).all()
