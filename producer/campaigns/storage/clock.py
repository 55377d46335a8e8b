"""The time at which something changed, as the database keeps it. A module of its own, so that tests can move it."""

from __future__ import annotations

from floodgate.broker.messages.job import unix_ms as now_ms

__all__ = ["now_ms"]
