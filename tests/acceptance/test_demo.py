"""The demo, as a newcomer runs it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.acceptance.server import rows
from tests.processes import FloodgateProcess
from tests.services import Vhost

# 20 of the group's messages are sent in its first minute and 10 in the next 10 s; the rest is start and stop.
FULL_SECONDS = 100.0
QUICK_SECONDS = 50.0


@pytest.mark.timeout(200)
@pytest.mark.parametrize(
    ("arguments", "at_most_seconds"),
    [(["--quick"], QUICK_SECONDS), pytest.param([], FULL_SECONDS, marks=pytest.mark.full_length)],
    ids=["quick", "full"],
)
def test_the_demo_accounts_for_every_job_and_cleans_up(
    vhost: Vhost, tmp_path: Path, arguments: list[str], at_most_seconds: float
) -> None:
    env = {"FLOODGATE_RABBITMQ_URL": vhost.url}
    started = time.monotonic()
    with FloodgateProcess("demo", *arguments, env=env, home=tmp_path, name="demo").start("Broadcasting") as demo:
        assert demo.wait(at_most_seconds) == 0, demo.log
    assert time.monotonic() - started <= at_most_seconds
    assert "answers 429: 0" in demo.log
    assert "order violations: 0" in demo.log
    assert "Every job is accounted for." in demo.log
    assert not [row["name"] for row in rows(vhost, "list_queues", "name") if ".demo-" in row["name"]]


@pytest.mark.timeout(200)
@pytest.mark.parametrize(
    "arguments", [["--quick"], pytest.param([], marks=pytest.mark.full_length)], ids=["quick", "full"]
)
def test_the_updates_demo_answers_everybody_once_and_cleans_up(
    vhost: Vhost, tmp_path: Path, arguments: list[str]
) -> None:
    env = {"FLOODGATE_RABBITMQ_URL": vhost.url}
    with FloodgateProcess("demo", "--updates", *arguments, env=env, home=tmp_path, name="demo").start(
        "Starting"
    ) as demo:
        assert demo.wait(FULL_SECONDS) == 0, demo.log
    assert "Everybody was answered once, in order." in demo.log
    assert not [row["name"] for row in rows(vhost, "list_queues", "name") if ".demo-" in row["name"]]


@pytest.mark.timeout(200)
@pytest.mark.parametrize(
    "arguments", [["--quick"], pytest.param([], marks=pytest.mark.full_length)], ids=["quick", "full"]
)
def test_the_campaign_demo_accounts_for_each_recipient_and_cleans_up(
    vhost: Vhost, tmp_path: Path, arguments: list[str]
) -> None:
    env = {"FLOODGATE_RABBITMQ_URL": vhost.url}
    with FloodgateProcess("demo", "--campaign", *arguments, env=env, home=tmp_path, name="demo").start(
        "Starting"
    ) as demo:
        assert demo.wait(FULL_SECONDS) == 0, demo.log
    assert "The leader was killed after" in demo.log
    assert "Each recipient is accounted for." in demo.log
    assert not [row["name"] for row in rows(vhost, "list_queues", "name") if ".demo-" in row["name"]]
