"""Reads the rows of an audience from files, iterables and SQL queries, and refuses invalid ones."""
