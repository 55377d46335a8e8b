"""`floodgate doctor`: one line for each subject of the settings, with a remedy for each problem."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from tests.acceptance.stage import TOKEN, Stage
from tests.processes import run_floodgate

SUBJECTS = ["settings", "RabbitMQ", "queues", "state store", "spool", "Bot API as 'default'", "clock"]
UNREACHABLE = "127.0.0.1:1"


def examined(stage: Stage, env: Mapping[str, str], code: int) -> dict[str, str]:
    """The problems by subject."""
    ended = stage.floodgate("doctor", "--json", **env)
    assert ended.returncode == code, ended.stdout + ended.stderr
    assert TOKEN not in ended.stdout + ended.stderr
    findings = json.loads(ended.stdout)
    return {each["subject"]: each["text"] for each in findings if not each["sound"]}


def test_everything_is_ok_once_the_queues_exist(stage: Stage) -> None:
    assert "floodgate topology apply" in examined(stage, {}, 1).pop("queues")
    assert stage.floodgate("topology", "apply").returncode == 0
    ended = stage.floodgate("doctor")
    assert ended.returncode == 0, ended.stdout
    assert [line.removeprefix("ok ").strip().partition(": ")[0] for line in ended.stdout.splitlines()] == SUBJECTS


@pytest.mark.parametrize(
    ("env", "subject", "remedy"),
    [
        ({"FLOODGATE_RABBITMQ_URL": f"amqp://guest:guest@{UNREACHABLE}/"}, "RabbitMQ", "Start it"),
        ({"FLOODGATE_STATE_URL": "sqlite:////proc/state.db"}, "state store", "/proc/state.db"),
        ({"FLOODGATE_SPOOL_URL": "/proc/spool"}, "spool", "/proc/spool"),
        ({"FLOODGATE_TELEGRAM_API_URL": f"http://{UNREACHABLE}"}, "Bot API as 'default'", "FLOODGATE_TELEGRAM_API_URL"),
    ],
    ids=["RabbitMQ", "state store", "spool", "Bot API"],
)
def test_each_problem_is_reported_with_its_remedy(stage: Stage, env: dict[str, str], subject: str, remedy: str) -> None:
    assert remedy in examined(stage, env, 1)[subject]


def test_invalid_settings_are_the_only_line_reported(stage: Stage) -> None:
    ended = run_floodgate("doctor", env={"FLOODGATE_PARTITIONS": "many"}, home=stage.home)
    assert ended.returncode == 1
    assert ended.stdout.startswith("FAIL settings: ") and "FLOODGATE_PARTITIONS" in ended.stdout
    assert len(ended.stdout.splitlines()) == 1
