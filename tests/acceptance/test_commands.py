"""Each command explains its use, prints JSON that parses, and works on a real server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from floodgate.broker.amqp import delay_ladder
from floodgate.broker.messages import queue_names
from tests.acceptance.stage import BOT, FEW_PARTITIONS, TOKEN, Stage
from tests.processes import run_floodgate
from tests.services import Vhost
from tests.waiting import until

COMMANDS = (
    ["demo"],
    ["worker"],
    ["send"],
    ["doctor"],
    ["fake-telegram"],
    ["status"],
    ["topology", "show"],
    ["topology", "apply"],
    ["topology", "verify"],
    ["dead-letters", "list"],
    ["dead-letters", "show"],
    ["dead-letters", "replay"],
    ["dead-letters", "drop"],
    ["dead-letters", "not-kept"],
    ["dead-letters", "sweep"],
    ["chats", "unreachable"],
    ["chats", "clear"],
    ["updates"],
    ["pause"],
    ["resume"],
)
QUEUES = 3 * FEW_PARTITIONS + delay_ladder.LEVELS + 5
NOTHING_QUEUED = {"interactive": 0, "bulk": 0, "answers": 0, "updates": 0, "dead": 0}


def answer(stage: Stage, *arguments: str, code: int = 0) -> Any:
    """Parses the command's output as JSON."""
    ended = stage.floodgate(*arguments, "--json")
    assert ended.returncode == code, ended.stderr
    return json.loads(ended.stdout)


def test_the_command_lists_its_subcommands(tmp_path: Path) -> None:
    listed = run_floodgate("--help", env={}, home=tmp_path).stdout
    assert all(command[0] in listed for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_each_commands_help_has_an_example_and_needs_no_settings(command: list[str], tmp_path: Path) -> None:
    ended = run_floodgate(*command, "--help", env={"FLOODGATE_PARTITIONS": "many"}, home=tmp_path)
    assert ended.returncode == 0
    shown = " ".join(ended.stdout.split())
    assert "Example:" in shown
    assert f"floodgate {' '.join(command)}" in shown


def test_an_unknown_option_is_a_usage_error(tmp_path: Path) -> None:
    ended = run_floodgate("worker", "--fast", env={}, home=tmp_path)
    assert (ended.returncode, "--fast" in ended.stderr, "Traceback" in ended.stderr) == (2, True, False)


def test_topology_is_shown_applied_and_verified(stage: Stage, vhost: Vhost) -> None:
    shown = answer(stage, "topology", "show")
    assert len(shown["queues"]) == QUEUES
    assert {queue["arguments"]["x-queue-type"] for queue in shown["queues"]} == {"quorum"}
    assert "quorum" in stage.floodgate("topology", "show").stdout

    missing = answer(stage, "topology", "verify", code=1)["faults"]
    assert any(queue_names.send_queue(BOT, "bulk", 0) in fault and "missing" in fault for fault in missing)
    assert stage.floodgate("topology", "apply").returncode == 0
    assert stage.floodgate("topology", "apply").returncode == 0, "it may be done again"
    assert answer(stage, "topology", "verify") == {"faults": []}
    assert "Everything matches the settings" in stage.floodgate("topology", "verify").stdout


def test_the_send_command_prints_the_accepted_job_and_a_worker_sends_it(stage: Stage) -> None:
    job = answer(stage, "send", "--chat", "42", "--text", "It works")
    assert (job["method"], job["chat"], job["params"]["text"]) == ("sendMessage", "42", "It works")
    ended = stage.floodgate("send", "--chat", "42", "--method", "sendDice", "--params", '{"emoji": "🎯"}')
    assert ended.returncode == 0
    assert "Accepted" in ended.stdout
    stage.worker()
    until(lambda: [call.method for call in stage.control.arrivals()] == ["sendMessage", "sendDice"])


def test_status_shows_waiting_sent_and_dead_jobs(stage: Stage) -> None:
    assert answer(stage, "status")[0]["queued"] == NOTHING_QUEUED
    client = stage.client()
    client.enqueue_many(client.job("sendMessage", chat_id=n, text=str(n), priority="bulk") for n in range(1, 4))
    assert answer(stage, "status")[0]["queued"] == NOTHING_QUEUED | {"bulk": 3}
    stage.control.set_chat(2, trouble="blocked")
    stage.worker()
    until(lambda: stage.control.stats().arrived == 3)
    [bot] = until(lambda: [bot for bot in answer(stage, "status") if bot["not_kept"]])
    assert (bot["bot"], bot["not_kept"], bot["dropped"]) == (BOT, {"chat-unreachable": 1}, {})
    assert bot["queued"]["dead"] == 0
    assert bot["queued"]["bulk"] == bot["sending"] == 0
    assert bot["sent_last_minute"] == 3
    table = stage.floodgate("status").stdout
    assert "dead letters" in table
    assert "chat-unreachable: 1" in table
    assert TOKEN not in table


def test_dead_letters_are_listed_with_their_reasons(stage: Stage) -> None:
    stage.control.set_chat(42, trouble="blocked")
    stage.worker()
    job = stage.client().send_message(chat_id=42, text="hi")
    [letter] = until(lambda: answer(stage, "dead-letters", "list"))
    assert letter["id"] == job.id
    assert letter["reason"] == "chat-unreachable"
    assert "blocked by the user" in letter["description"]
    assert letter["job"]["params"]["text"] == "hi"
    assert letter["attempts"] == 1
    assert answer(stage, "dead-letters", "list", "--bot", BOT) == [letter], "it stays where it is"
    assert job.id in stage.floodgate("dead-letters", "list").stdout
