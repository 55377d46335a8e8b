"""The first version: campaigns, their recipients, and who has unsubscribed."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "campaigns",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(40), nullable=False, unique=True),
        sa.Column("bot", sa.String(32), nullable=False),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("definition", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("fingerprint", sa.String(32)),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("started_ms", sa.BigInteger),
        sa.Column("ended_ms", sa.BigInteger),
        sa.Column("corrects", sa.Integer),
        sa.Column("leader", sa.String(64)),
        sa.Column("leader_until_ms", sa.BigInteger, nullable=False, server_default="0"),
    )
    op.create_table(
        "campaign_recipients",
        sa.Column("campaign", sa.Integer, primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("chat", sa.String(40), nullable=False),
        sa.Column("fields", sa.Text),
        sa.Column("variant", sa.SmallInteger, nullable=False),
        sa.Column("zone", sa.SmallInteger, nullable=False),
        sa.Column("state", sa.SmallInteger, nullable=False),
        sa.Column("attempt", sa.SmallInteger, nullable=False, server_default="0"),
        sa.Column("version", sa.SmallInteger),
        sa.Column("due_ms", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("message_id", sa.BigInteger),
        sa.Column("error", sa.Text),
        sa.Column("released_ms", sa.BigInteger),
        sa.Column("ended_ms", sa.BigInteger),
        sa.UniqueConstraint("campaign", "chat", name="campaign_recipients_chat"),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "campaign_recipients_state", "campaign_recipients", ["campaign", "state", "zone", "due_ms", "number"]
    )
    op.create_index(
        "campaign_recipients_contacted",
        "campaign_recipients",
        ["chat", "ended_ms"],
        sqlite_where=sa.text("state IN (1, 2, 5)"),
        postgresql_where=sa.text("state IN (1, 2, 5)"),
    )
    op.create_table(
        "campaign_zones",
        sa.Column("campaign", sa.Integer, primary_key=True),
        sa.Column("number", sa.SmallInteger, primary_key=True, autoincrement=False),
        sa.Column("name", sa.String(64), nullable=False),
    )
    op.create_table(
        "campaign_counts",
        sa.Column("campaign", sa.Integer, primary_key=True),
        sa.Column("state", sa.SmallInteger, primary_key=True, autoincrement=False),
        sa.Column("number", sa.Integer, nullable=False),
    )
    op.create_table(
        "campaign_refused_rows",
        sa.Column("campaign", sa.Integer, primary_key=True),
        sa.Column("why", sa.String(200), primary_key=True),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("line", sa.Integer, nullable=False),
        sa.Column("sample", sa.Text, nullable=False),
    )
    op.create_table(
        "campaign_responses",
        sa.Column("campaign", sa.Integer, primary_key=True),
        sa.Column("recipient", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("kind", sa.SmallInteger, primary_key=True, autoincrement=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "campaign_excluded",
        sa.Column("campaign", sa.Integer, primary_key=True),
        sa.Column("chat", sa.String(40), primary_key=True),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "campaign_unsubscribed",
        sa.Column("bot", sa.String(32), primary_key=True),
        sa.Column("chat", sa.String(40), primary_key=True),
        sa.Column("since_ms", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "campaign_reports",
        sa.Column("campaign", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("chat", sa.String(40), nullable=False),
        sa.Column("message", sa.BigInteger),
        sa.Column("state", sa.String(10), nullable=False),
    )
