"""The versions of the campaigns' database, applied by Alembic when a store is opened."""
