"""What the nodes of RabbitMQ have left, in words."""

from __future__ import annotations

import pytest

from floodgate.overview.node_resources import _read, disk_health
from floodgate.overview.picture import Health, NodeResources, Overview
from floodgate.web.rendering import fragment

SOUND = NodeResources("rabbit@a", (), 30_000_000_000, 1_000_000_000)


def test_the_node_with_the_least_left_is_shown() -> None:
    assert disk_health([SOUND]) == Health("30.0 GB free, limit 1.0 GB")
    low = NodeResources("rabbit@b", (), 31_000_000_000, 29_500_000_000)
    assert disk_health([SOUND, low]).text == "rabbit@b: 31.0 GB free, limit 29.5 GB"


@pytest.mark.parametrize(
    ("resource", "told"), [("disk", "less free disk than its limit"), ("memory", "more memory than its limit")]
)
def test_an_alarm_is_a_fault_that_says_what_to_do(resource: str, told: str) -> None:
    health = disk_health([SOUND, NodeResources("rabbit@b", (resource,), 5, 9)])
    assert not health.up
    assert told in health.text
    assert health.text.endswith(f"so RabbitMQ accepts no messages: free some {resource}.")


def test_nodes_that_are_down_or_have_no_statistics_are_left_out() -> None:
    sound = {"mem_alarm": False, "disk_free_alarm": True, "disk_free": 5, "disk_free_limit": 9}
    told = [
        {"name": "rabbit@a", "running": True} | sound,
        {"name": "rabbit@b", "running": True},
        {"name": "rabbit@c", "running": False},
    ]
    assert _read(lambda _: told) == (NodeResources("rabbit@a", ("disk",), 5, 9),)
    assert disk_health(_read(lambda _: told[1:])).text.startswith("unknown")


def test_the_overview_has_a_tile_for_the_disk_if_it_can_be_asked() -> None:
    health = Health("answers")
    without = Overview((), health, health, None, {})
    assert "disk" not in fragment("overview_part.html", picture=without)
    low = disk_health([NodeResources("rabbit@a", ("disk",), 5, 9)])
    assert 'disk</dt><dd class="problem">rabbit@a has less' in fragment(
        "overview_part.html", picture=Overview((), health, health, None, {}, disk=low)
    )
