"""Run by Alembic: applies versions on the connection that the store hands over."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], version_table="campaign_version")
context.run_migrations()
