"""Each command explains its use, prints JSON that parses, and works on a real server."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from floodgate.broker.amqp import delay_ladder, queue_admin, topology
from floodgate.broker.amqp.connections import Connections
from floodgate.broker.messages import queue_names
from floodgate.broker.messages.publication import Publication
from floodgate.cli import EXIT_RABBITMQ, app
from tests.acceptance.stage import BOT, FEW_PARTITIONS, TOKEN, Stage
from tests.processes import FloodgateProcess, run_floodgate, run_python
from tests.services import Vhost
from tests.waiting import until

COMMANDS = (
    ["demo"],
    ["worker"],
    ["up"],
    ["send"],
    ["web"],
    ["doctor"],
    ["metrics"],
    ["fake-telegram"],
    ["status"],
    ["top"],
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
    ["jobs", "show"],
    ["jobs", "tail"],
    ["jobs", "cancel"],
    ["updates"],
    ["campaigns", "run"],
    ["campaigns", "create"],
    ["campaigns", "check"],
    ["campaigns", "test"],
    ["campaigns", "start"],
    ["campaigns", "pause"],
    ["campaigns", "resume"],
    ["campaigns", "cancel"],
    ["campaigns", "edit"],
    ["campaigns", "edit-sent"],
    ["campaigns", "delete-sent"],
    ["campaigns", "retry"],
    ["campaigns", "list"],
    ["campaigns", "show"],
    ["campaigns", "watch"],
    ["campaigns", "results"],
    ["campaigns", "unsubscribe"],
    ["campaigns", "export"],
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
def test_each_commands_help_has_an_example_and_needs_no_settings(command: list[str]) -> None:
    env = {"FLOODGATE_PARTITIONS": "many", "TERM": "dumb", "COLUMNS": "200"}
    ended = CliRunner().invoke(app, [*command, "--help"], env=env)
    assert ended.exit_code == 0
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
    assert answer(stage, "topology", "verify") == {"faults": [], "unread": {}}
    assert "Everything matches the settings" in stage.floodgate("topology", "verify").stdout


def test_another_number_of_partitions_is_refused_until_it_is_changed_on_purpose(stage: Stage) -> None:
    more = {"FLOODGATE_PARTITIONS": str(stage.partitions + 2)}
    assert stage.floodgate("topology", "apply").returncode == 0
    differs = f"has {stage.partitions} partitions on this RabbitMQ and this process has {stage.partitions + 2}"
    for command in (["worker"], ["topology", "apply"]):
        refused = stage.floodgate(*command, **more)
        assert refused.returncode == EXIT_RABBITMQ
        assert differs in refused.stderr and "Traceback" not in refused.stderr, refused.stderr
    assert stage.floodgate("topology", "apply", "--change-partitions", **more).returncode == 0
    assert stage.floodgate("topology", "verify", **more).returncode == 0


def test_a_receiver_with_another_number_of_update_partitions_is_refused(stage: Stage) -> None:
    assert stage.floodgate("topology", "apply").returncode == 0
    refused = stage.floodgate("updates", FLOODGATE_UPDATE_PARTITIONS="9")
    assert (refused.returncode, "FLOODGATE_UPDATE_PARTITIONS" in refused.stderr) == (EXIT_RABBITMQ, True)


def test_messages_that_nobody_reads_are_shown_and_beyond_the_settings_they_are_a_fault(stage: Stage) -> None:
    job = stage.client().send_message(1, "hi", priority="bulk")
    queue = queue_names.home_of(job, stage.partitions)
    assert answer(stage, "status")[0]["unread"] == {queue: 1}
    assert answer(stage, "topology", "verify", code=1)["unread"] == {queue: 1}  # the updates' queues are missing
    with Connections(stage.settings, "test") as connections:
        beyond = queue_names.send_queue(BOT, "bulk", stage.partitions)
        queue_admin.declare(connections, topology.of_queues([beyond], stage.settings))
        connections.publisher.publish(Publication("", beyond, b"{}", "id"))
    # On a busy machine RabbitMQ may report an empty queue for long: see QueueLoad.
    until(lambda: f"{queue} (1), {beyond} (1)" in " ".join(stage.floodgate("status").stdout.split()), 30)
    lines = stage.floodgate("topology", "verify").stdout.splitlines()
    assert f"Queue {queue} has no consumer; messages in it: 1." in lines
    assert f"Queue {beyond} has no consumer; messages in it: 1. Its number is beyond the settings'." in lines


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
    until(lambda: answer(stage, "status")[0]["queued"] == NOTHING_QUEUED | {"bulk": 3})  # see QueueLoad
    stage.control.set_chat(2, trouble="blocked")
    stage.worker()
    until(lambda: stage.control.stats().arrived == 3)
    [bot] = until(lambda: [bot for bot in answer(stage, "status") if bot["not_kept"]])
    assert (bot["bot"], bot["not_kept"], bot["dropped"]) == (BOT, {"chat-unreachable": 1}, {})
    assert bot["queued"]["dead"] == 0
    assert bot["queued"]["bulk"] == bot["sending"] == 0
    assert bot["sent_last_minute"] in (2, 3)  # when a minute of the clock has just ended, the last one is estimated
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


def test_help_has_a_short_option_and_shells_complete(tmp_path: Path) -> None:
    for command in ([], ["status"], ["dead-letters", "list"]):
        assert run_floodgate(*command, "-h", env={}, home=tmp_path).returncode == 0
    completing = {"_FLOODGATE_COMPLETE": "complete_bash", "COMP_WORDS": "floodgate dead-letters re", "COMP_CWORD": "2"}
    ended = run_python(
        "-c",
        "import sys; sys.argv = ['floodgate']; from floodgate.__main__ import main; main()",
        env=completing,
        home=tmp_path,
    )
    assert ended.stdout.split() == ["replay"]


def test_a_read_only_command_creates_nothing(stage: Stage, tmp_path: Path) -> None:
    new = tmp_path / "new"
    nowhere = {"FLOODGATE_STATE_URL": f"sqlite:///{new}/state.db", "FLOODGATE_SPOOL_URL": f"{new}/spool"}
    assert stage.floodgate("topology", "apply").returncode == 0
    for command in (
        ["status"],
        ["doctor"],
        ["topology", "verify"],
        ["dead-letters", "list"],
        ["dead-letters", "not-kept"],
        ["chats", "unreachable"],
    ):
        ended = stage.floodgate(*command, **nowhere)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert not new.exists(), command
    assert "state.db does not exist yet" in stage.floodgate("status", **nowhere).stderr


def test_status_of_a_new_store_claims_no_sends(stage: Stage, tmp_path: Path) -> None:
    stage.floodgate("topology", "apply")
    for url in (f"sqlite:///{tmp_path}/missing.db", f"sqlite:///{tmp_path}/new.db"):
        (tmp_path / "new.db").touch()
        ended = stage.floodgate("status", "--json", FLOODGATE_STATE_URL=url)
        assert json.loads(ended.stdout)[0]["sent_last_second"] == 0


def test_status_shows_one_bot_and_goes_on_showing_it(stage: Stage) -> None:
    stage.extra["FLOODGATE_BOTS"] = json.dumps({BOT: TOKEN, "other": "2" + TOKEN})
    assert [bot["bot"] for bot in answer(stage, "status", "--bot", "other")] == ["other"]
    assert "configured: default, other" in stage.floodgate("status", "--bot", "nobody").stderr
    watching = stage.keep(
        FloodgateProcess("status", "--bot", "other", "--watch", "--json", env=stage.env, home=stage.home)
    )
    watching.start('"bot": "other"')
    until(lambda: len(watching.log.splitlines()) == 2)
    watching.signal(signal.SIGINT)
    assert watching.wait() == 130


def test_send_takes_every_option_of_a_job(stage: Stage) -> None:
    options = ["--dedupe-key", "k", "--campaign", "spring", "--priority", "bulk", "--at", "2h", "--expires", "3h"]
    job = answer(stage, "send", "--chat", "42", "--text", "hi", *options)
    now_ms = time.time() * 1000
    assert (job["dedupe_key"], job["campaign"], job["priority"]) == ("k", "spring", "bulk")
    assert job["not_before_ms"] == pytest.approx(now_ms + 7_200_000, abs=60_000)
    assert job["expires_ms"] == pytest.approx(now_ms + 10_800_000, abs=60_000)
    far = stage.floodgate("send", "--chat", "42", "--text", "hi", "--at", "2099-01-01T10:00")
    assert (far.returncode, "388 days" in far.stderr) == (2, True)


def test_send_waits_for_telegrams_answer(stage: Stage) -> None:
    stage.control.set_chat(2, trouble="blocked")
    stage.worker()
    sent = answer(stage, "send", "--chat", "42", "--text", "hi", "--wait", "30")
    assert sent["result"]["text"] == "hi"
    told = stage.floodgate("send", "--chat", "42", "--text", "hi", "--wait", "30")
    assert told.returncode == 0 and "message_id" in told.stdout
    refused = stage.floodgate("send", "--chat", "2", "--text", "hi", "--wait", "30")
    assert (refused.returncode, "chat-unreachable" in refused.stderr) == (1, True)


def test_ids_in_tables_are_whole_however_narrow_the_terminal(stage: Stage) -> None:
    stage.control.set_chat(42, trouble="blocked")
    stage.worker()
    client = stage.client()
    job = client.send_message(chat_id=42, text="hi", dedupe_key="x")
    bulk = client.send_message(chat_id=42, text="hi", priority="bulk")
    until(lambda: answer(stage, "dead-letters", "list") and answer(stage, "dead-letters", "not-kept"))
    assert job.id in stage.floodgate("dead-letters", "list", COLUMNS="40").stdout
    assert bulk.id in stage.floodgate("dead-letters", "not-kept", COLUMNS="40").stdout
    assert queue_names.send_queue(BOT, "bulk", 0) in stage.floodgate("topology", "show", COLUMNS="20").stdout
