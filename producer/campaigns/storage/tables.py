"""The tables of the campaigns' database, as the statements of :mod:`.store` see them. ``migrations`` creates them.

Times are Unix time in milliseconds. A recipient takes some 100 bytes and its fields.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

METADATA: Final = MetaData()

# Released, sent or uncertain. Literal, because a partial index is used only for a condition that is exactly its own.
CONTACTED: Final = text("state IN (1, 2, 5)")

campaigns: Final = Table(
    "campaigns",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("name", String(40), nullable=False, unique=True),
    Column("bot", String(32), nullable=False),
    Column("state", String(10), nullable=False),
    Column("reason", Text),  # why a rule stopped it
    Column("definition", Text, nullable=False),  # JSON
    Column("version", Integer, nullable=False),  # of the content; edits count it up
    Column("fingerprint", String(32)),  # of the frozen audience
    Column("created_ms", BigInteger, nullable=False),
    Column("started_ms", BigInteger),
    Column("ended_ms", BigInteger),
    Column("corrects", Integer),  # the campaign whose messages this one edits or deletes
    Column("leader", String(64)),
    Column("leader_until_ms", BigInteger, nullable=False, server_default="0"),
)

recipients: Final = Table(
    "campaign_recipients",
    METADATA,
    Column("campaign", Integer, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),  # in the order of the audience, from 1
    Column("chat", String(40), nullable=False),
    Column("fields", Text),  # JSON
    Column("variant", SmallInteger, nullable=False),
    Column("zone", SmallInteger, nullable=False),  # a row of campaign_zones
    Column("state", SmallInteger, nullable=False),
    Column("attempt", SmallInteger, nullable=False, server_default="0"),  # counts jobs; the job's id contains it
    Column("version", SmallInteger),  # of the campaign when the latest job was released
    Column("due_ms", BigInteger, nullable=False, server_default="0"),  # waits until then, because its chat rests
    Column("message_id", BigInteger),
    Column("error", Text),
    Column("released_ms", BigInteger),
    Column("ended_ms", BigInteger),
    UniqueConstraint("campaign", "chat", name="campaign_recipients_chat"),
    Index("campaign_recipients_state", "campaign", "state", "zone", "due_ms", "number"),
    # Those who got a message or may get one now. Waiting recipients are not in it, so it costs an import nothing.
    Index("campaign_recipients_contacted", "chat", "ended_ms", sqlite_where=CONTACTED, postgresql_where=CONTACTED),
    sqlite_with_rowid=False,
)

zones: Final = Table(
    "campaign_zones",
    METADATA,
    Column("campaign", Integer, primary_key=True),
    Column("number", SmallInteger, primary_key=True, autoincrement=False),
    Column("name", String(64), nullable=False),
)

counts: Final = Table(
    "campaign_counts",
    METADATA,
    Column("campaign", Integer, primary_key=True),
    Column("state", SmallInteger, primary_key=True, autoincrement=False),
    Column("number", Integer, nullable=False),
)

refused_rows: Final = Table(
    "campaign_refused_rows",
    METADATA,
    Column("campaign", Integer, primary_key=True),
    Column("why", String(200), primary_key=True),
    Column("number", Integer, nullable=False),
    Column("line", Integer, nullable=False),  # of the first
    Column("sample", Text, nullable=False),
)

responses: Final = Table(
    "campaign_responses",
    METADATA,
    Column("campaign", Integer, primary_key=True),
    Column("recipient", Integer, primary_key=True, autoincrement=False),  # its number
    Column("kind", SmallInteger, primary_key=True, autoincrement=False),
    Column("at_ms", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

excluded: Final = Table(  # while an audience is imported
    "campaign_excluded",
    METADATA,
    Column("campaign", Integer, primary_key=True),
    Column("chat", String(40), primary_key=True),
    sqlite_with_rowid=False,
)

unsubscribed: Final = Table(
    "campaign_unsubscribed",
    METADATA,
    Column("bot", String(32), primary_key=True),
    Column("chat", String(40), primary_key=True),
    Column("since_ms", BigInteger, nullable=False),
)

reports: Final = Table(
    "campaign_reports",
    METADATA,
    Column("campaign", Integer, primary_key=True, autoincrement=False),
    Column("chat", String(40), nullable=False),
    Column("message", BigInteger),
    Column("state", String(10), nullable=False),  # the campaign's state that was last reported
)
REPORT_FAILED: Final = "failed"
