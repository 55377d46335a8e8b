"""docs/monitoring.md matches the table of metrics."""

from __future__ import annotations

from floodgate.broker.process.metrics_page import PAGE, page


def test_the_page_matches_the_table() -> None:
    assert PAGE.read_text() == page(), "Renew it with: python -m floodgate.broker.process.metrics_page"
