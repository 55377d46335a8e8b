"""Dramatiq's own test_callbacks.py, on our broker."""

from __future__ import annotations

from tests.dramatiq_suite.upstream import taken_from

globals().update(taken_from("test_callbacks"))
