"""Uploaded files: the spool where they wait, and its sweeper."""
