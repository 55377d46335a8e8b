"""Common mistakes: each is one sentence on standard error and an exit code, never a stack trace."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from unittest import mock

import pika
import pytest

from floodgate.__main__ import main
from floodgate.broker.messages import queue_names
from floodgate.cli import EXIT_RABBITMQ, EXIT_STATE, EXIT_USAGE
from tests.acceptance.stage import BOT, TOKEN, Stage
from tests.processes import environment, run_floodgate
from tests.proxy import Proxy
from tests.services import Vhost, free_ports

Run = Callable[..., CompletedProcess[str]]
# Commands that need a server; of all commands, one more needs a bot.
ON_A_SERVER = (
    ["worker"],
    ["send", "--chat", "42", "--text", "hi"],
    ["topology", "apply"],
    ["topology", "verify"],
    ["dead-letters", "list"],
    ["dead-letters", "replay", "--yes"],
    ["status"],
    ["up"],
)
each_on_a_server = pytest.mark.parametrize("command", ON_A_SERVER, ids=" ".join)
each_with_a_bot = pytest.mark.parametrize("command", [*ON_A_SERVER, ["topology", "show"]], ids=" ".join)


def run_here(*command: str, env: dict[str, str], home: Path) -> CompletedProcess[str]:
    """Does the same as `run_floodgate` in the test's own process, for commands that end before they reach a server."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.dict(os.environ, environment(env), clear=True),
        mock.patch.object(sys, "argv", ["floodgate", *command]),
        contextlib.chdir(home),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    return CompletedProcess(command, int(ended.value.code or 0), out.getvalue(), err.getvalue())


def fails(command: list[str], code: int, *words: str, env: dict[str, str], home: Path, run: Run = run_floodgate) -> str:
    """Checks the exit code and for one line on standard error that contains the words and no secret."""
    ended = run(*command, env=env, home=home)
    assert "Traceback" not in ended.stderr, ended.stderr
    assert ended.returncode == code, ended.stderr
    assert ended.stdout == ""
    said = ended.stderr.rstrip("\n")
    assert said.endswith(".") and "\n" not in said, ended.stderr
    for word in words:
        assert word in said
    assert TOKEN.partition(":")[2] not in said
    return said


@pytest.fixture
def offline(tmp_path: Path) -> dict[str, str]:
    """A bot, a state file, and a RabbitMQ URL where nothing listens."""
    return {
        "FLOODGATE_RABBITMQ_URL": f"amqp://guest:secret@127.0.0.1:{free_ports().amqp}/",
        "FLOODGATE_BOTS": json.dumps({BOT: TOKEN}),
        "FLOODGATE_STATE_URL": f"sqlite:///{tmp_path}/state.db",
        "FLOODGATE_PARTITIONS": "2",
        "FLOODGATE_UPDATE_PARTITIONS": "2",
    }


@each_with_a_bot
def test_a_missing_token_is_reported_with_the_variable_to_set(
    command: list[str], offline: dict[str, str], tmp_path: Path
) -> None:
    env = offline | {"FLOODGATE_BOTS": ""}
    fails(command, EXIT_USAGE, "FLOODGATE_BOT_TOKEN", env=env, home=tmp_path, run=run_here)


@pytest.mark.parametrize("variable", ["FLOODGATE_BOT_TOKEN", "FLOODGATE_BOTS"])
def test_a_malformed_token_is_reported_by_its_variable_and_not_shown(
    variable: str, offline: dict[str, str], tmp_path: Path
) -> None:
    wrong = "100200300:" + "B" * 20
    value = json.dumps({"news": wrong}) if variable == "FLOODGATE_BOTS" else wrong
    env = offline | {"FLOODGATE_BOTS": "", variable: value}
    for command in (["worker"], ["send", "--chat", "42", "--text", "hi"]):
        said = fails(command, EXIT_USAGE, variable, "malformed", "@BotFather", env=env, home=tmp_path, run=run_here)
        assert "BBBB" not in said


@pytest.mark.parametrize(
    ("variable", "value", "word"),
    [
        ("FLOODGATE_PARTITIONS", "many", "integer"),
        ("FLOODGATE_PARTITIONS", "0", "greater than or equal to 1"),
        ("FLOODGATE_RABBITMQ_URL", "http://127.0.0.1/", "AMQP URL"),
        ("FLOODGATE_STATE_URL", "postgres://127.0.0.1/", "sqlite:///"),
        ("FLOODGATE_BOTS", "{not json", "JSON"),
        ("FLOODGATE_LIMITS__BOT_PER_SECOND", "-1", "greater than 0"),
        ("FLOODGATE_LOG_LEVEL", "LOUD", "DEBUG"),
        ("FLOODGATE_SHUTDOWN_SECONDS", "1", "FLOODGATE_CALL_TIMEOUT_SECONDS"),
    ],
)
def test_an_invalid_setting_is_reported_with_its_allowed_values(
    variable: str, value: str, word: str, offline: dict[str, str], tmp_path: Path
) -> None:
    fails(["worker"], EXIT_USAGE, variable, word, env=offline | {variable: value}, home=tmp_path, run=run_here)


def test_two_names_of_one_token_are_refused_at_start(offline: dict[str, str], tmp_path: Path) -> None:
    twice = {"news": TOKEN, "alerts": TOKEN}
    env = offline | {"FLOODGATE_BOTS": json.dumps(twice)}
    for command in (["worker"], ["gateway"], ["updates"]):
        fails(
            command,
            EXIT_USAGE,
            "'news' and 'alerts' have the same token",
            "keep one of the two",
            env=env,
            home=tmp_path,
            run=run_here,
        )
    alone = offline | {"FLOODGATE_BOTS": json.dumps({"news": TOKEN}), "FLOODGATE_BOT_TOKEN": TOKEN}
    fails(["worker"], EXIT_USAGE, "'default' and 'news' have the same token", env=alone, home=tmp_path, run=run_here)


@each_on_a_server
def test_an_unreachable_rabbitmq_is_reported_with_its_address(
    command: list[str], offline: dict[str, str], tmp_path: Path
) -> None:
    address = offline["FLOODGATE_RABBITMQ_URL"].rpartition("@")[2].rstrip("/")
    said = fails(command, EXIT_RABBITMQ, address, "scripts/rabbitmq start", env=offline, home=tmp_path)
    assert "secret" not in said


@each_on_a_server
def test_a_rabbitmq_3_is_refused_with_its_version(command: list[str], stage: Stage, vhost: Vhost) -> None:
    version = vhost.node.version
    old = "3" + version[1:]
    with Proxy(vhost.node.port, rewrite=(version.encode(), old.encode())) as proxy:
        env = stage.env | {"FLOODGATE_RABBITMQ_URL": proxy.url(vhost.url)}
        fails(command, EXIT_RABBITMQ, old, "RabbitMQ 4.0 or newer", env=env, home=stage.home)


@pytest.mark.parametrize("command", ON_A_SERVER[:3], ids=" ".join)
def test_a_queue_that_is_declared_differently_is_reported_and_left_alone(
    command: list[str], stage: Stage, vhost: Vhost
) -> None:
    name = queue_names.send_queue(BOT, "bulk", 1)
    with pika.BlockingConnection(pika.URLParameters(vhost.url)) as connection:
        connection.channel().queue_declare(name, durable=True, arguments={"x-queue-type": "classic"})
    fails(command, EXIT_RABBITMQ, name, "RabbitMQ says", "Floodgate declares", "quorum", env=stage.env, home=stage.home)
    assert [name, "classic"] in json_rows(vhost, "name", "type")


def json_rows(vhost: Vhost, *columns: str) -> list[list[str]]:
    rows = json.loads(vhost.ctl("list_queues", *columns, "--formatter=json"))
    return [[row[column] for column in columns] for row in rows]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--chat", "42", "--text", "hi", "--bot", "nws"], ("'nws'", "configured: default")),
        (["--chat", "42", "--method", "send/Message", "--text", "hi"], ("send/Message", "sendMessage")),
        (["--chat", "42", "--text", ""], ("text",)),
        (["--chat", "42"], ("text",)),
        (["--text", "hi"], ("chat_id",)),
        (["--chat", "4 2", "--text", "hi"], ("chat",)),
        (["--chat", "42", "--text", "x" * 4097], ("4096",)),
        (["--chat", "42", "--text", "hi", "--params", "{parse_mode: HTML}"], ("--params", "JSON")),
        (["--chat", "42", "--text", "hi", "--params", "[1]"], ("--params", "JSON object")),
    ],
    ids=lambda value: " ".join(value)[:40],
)
def test_an_invalid_job_is_refused_before_any_server_is_contacted(
    arguments: list[str], words: tuple[str, ...], offline: dict[str, str], tmp_path: Path
) -> None:
    fails(["send", *arguments], EXIT_USAGE, *words, env=offline, home=tmp_path, run=run_here)


@pytest.mark.parametrize("command", [["worker"], ["pause", "--for", "1m"]], ids=" ".join)
def test_an_unwritable_state_file_is_named(command: list[str], stage: Stage) -> None:
    """Root may write anywhere, so the folder is a file: nothing can be created below it."""
    blocked = stage.home / "not-a-folder"
    blocked.touch()
    env = stage.env | {"FLOODGATE_STATE_URL": f"sqlite:///{blocked}/state.db"}
    fails(command, EXIT_STATE, str(blocked), env=env, home=stage.home)


@pytest.mark.skipif(not Path("/proc/version").exists(), reason="needs a folder that nobody may write to")
def test_a_state_file_on_a_read_only_file_system_is_named(stage: Stage) -> None:
    env = stage.env | {"FLOODGATE_STATE_URL": "sqlite:////proc/floodgate/state.db"}
    fails(["worker"], EXIT_STATE, "/proc/floodgate", env=env, home=stage.home)


def test_a_state_file_that_is_not_a_database_is_named(stage: Stage) -> None:
    path = stage.home / "notes.txt"
    path.write_text("shopping list\n" * 1000)
    env = stage.env | {"FLOODGATE_STATE_URL": f"sqlite:///{path}"}
    fails(["worker"], EXIT_STATE, str(path), env=env, home=stage.home)
    assert path.read_text().startswith("shopping list"), "it was left alone"


def test_a_port_in_use_is_reported_by_the_fake(stage: Stage) -> None:
    port = stage.telegram_url.rpartition(":")[2]
    fails(["fake-telegram", "--port", port], EXIT_USAGE, port, env={}, home=stage.home)


def test_more_queues_than_a_worker_can_consume_are_refused_before_any_is_declared(
    offline: dict[str, str], tmp_path: Path
) -> None:
    """The check comes before RabbitMQ is contacted: there is none."""
    bots = {f"bot{n}": f"{100200300 + n}:" + "A" * 35 for n in range(10)}
    many = {"FLOODGATE_BOTS": json.dumps(bots), "FLOODGATE_PARTITIONS": "1024"}
    fails(["worker"], EXIT_USAGE, "20490 queues", "FLOODGATE_PARTITIONS", "split", env=offline | many, home=tmp_path)
