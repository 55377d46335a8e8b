"""Keeps campaigns and their recipients in SQL: on SQLite, or on PostgreSQL for many machines."""
