"""Dramatiq's own test_worker.py, on our broker."""

from __future__ import annotations

from tests.dramatiq_suite.upstream import taken_from

globals().update(taken_from("test_worker"))
