"""A poll abandoned by its receiver ends before another receiver polls."""

from __future__ import annotations

import pytest

from floodgate.broker.settings.model import Settings
from floodgate.producer.updates.process import poll_seconds


@pytest.mark.parametrize(
    ("heartbeat", "lease", "set_to", "is_really"),
    [(30, 5, 20, 20), (30, 5, 50, 32), (2, 2, 20, 3), (2, 1, 1, 1)],
)
def test_no_poll_outlasts_rabbitmqs_heartbeat_detection(
    heartbeat: int, lease: int, set_to: int, is_really: int
) -> None:
    settings = Settings(
        _env_file=None, heartbeat_seconds=heartbeat, updates={"lease_seconds": lease, "poll_seconds": set_to}
    )
    assert poll_seconds(settings) == is_really
