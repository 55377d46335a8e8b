"""Uploads: the spool that stores them, and its sweeper."""
