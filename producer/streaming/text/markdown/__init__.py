"""Reads the Markdown that language models write: CommonMark with GitHub's tables and strikethrough.

Needs markdown-it-py (``telegram-floodgate[markdown]``).
"""
