"""scripts/rabbitmq as people use it."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rabbitmq_node.amqp import CONNECTION_START, PROTOCOL_HEADER, greet
from rabbitmq_node.node import Node

SCRIPT = Path(__file__).parents[2] / "scripts" / "rabbitmq"
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(tmp_path: Path, rabbitmq_version: str | None) -> Iterator[Run]:
    """Runs the script with this test's own state folder."""

    def script(command: str, *args: str, url: str | None = None) -> subprocess.CompletedProcess[str]:
        environment = {k: v for k, v in os.environ.items() if k != "FLOODGATE_RABBITMQ_URL"}
        environment["XDG_STATE_HOME"] = str(tmp_path)
        if url:
            environment["FLOODGATE_RABBITMQ_URL"] = url
        wanted = ["--version", rabbitmq_version] if rabbitmq_version else []
        command_line = [SCRIPT, command, *wanted, *args]
        return subprocess.run(command_line, env=environment, capture_output=True, text=True, timeout=100, check=False)

    yield script
    script("stop")


@pytest.fixture
def rabbitmq_3() -> Iterator[int]:
    """The port of a server that greets like RabbitMQ 3.10.8."""
    table = b"".join(
        bytes([len(name)]) + name + b"S" + struct.pack(">I", len(text)) + text
        for name, text in ((b"product", b"RabbitMQ"), (b"version", b"3.10.8"))
    )
    payload = CONNECTION_START + b"\x00\x09" + struct.pack(">I", len(table)) + table
    frame = struct.pack(">BHI", 1, 0, len(payload)) + payload + b"\xce"
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                assert connection.recv(len(PROTOCOL_HEADER)) == PROTOCOL_HEADER
                connection.sendall(frame)

        thread = threading.Thread(target=serve, name="rabbitmq-3", daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(10)


def test_a_started_node_keeps_running_is_reused_and_can_be_stopped(run: Run) -> None:
    first = run("start")
    assert first.returncode == 0, first.stderr
    url = first.stdout.strip()
    port = int(url.rpartition(":")[2].partition("/")[0])
    assert greet("127.0.0.1", port) is not None

    again = run("start")
    assert (again.returncode, again.stdout.strip()) == (0, url)
    assert "already running" in again.stderr
    assert run("url").stdout.strip() == url
    assert run("status").returncode == 0
    assert run("ctl", "list_vhosts").stdout.split() == ["/"]
    moved = run("start", "--port", str(port - 1))
    assert moved.returncode == 1
    assert "stop it first" in moved.stderr

    assert run("stop").returncode == 0
    assert greet("127.0.0.1", port) is None
    assert run("stop").returncode == 0
    for command in ("url", "status"):
        gone = run(command)
        assert (gone.returncode, gone.stdout) == (3, "")
        assert "scripts/rabbitmq start" in gone.stderr


def test_two_simultaneous_starts_get_one_node(run: Run) -> None:
    answers: list[str] = []
    threads = [
        threading.Thread(target=lambda: answers.append(run("start").stdout), name=f"starter-{n}") for n in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    assert len(answers) == 2
    assert answers[0] == answers[1] != ""


def test_a_configured_server_is_used_and_never_stopped(run: Run, rabbitmq: Node) -> None:
    assert run("start", url=rabbitmq.url).stdout.strip() == rabbitmq.url
    stopped = run("stop", url=rabbitmq.url)
    assert stopped.returncode == 0
    assert "left running" in stopped.stderr
    assert greet("127.0.0.1", rabbitmq.port) is not None


def test_a_configured_server_that_is_too_old_is_refused_with_its_version(run: Run, rabbitmq_3: int) -> None:
    refused = run("start", url=f"amqp://guest:secret@127.0.0.1:{rabbitmq_3}/")
    assert refused.returncode == 1
    assert "is RabbitMQ 3.10.8; Floodgate needs 4." in refused.stderr
    assert "secret" not in refused.stderr
    assert refused.stdout == ""


def test_an_unreachable_configured_server_is_reported_in_one_sentence(run: Run) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound but not listening: no other server can answer there
        port = unused.getsockname()[1]
        refused = run("start", url=f"amqp://127.0.0.1:{port}/")
    assert refused.returncode == 1
    assert f"No RabbitMQ answers at 127.0.0.1:{port}" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_port_in_use_is_reported_in_one_sentence(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        refused = run("start", "--port", str(other.getsockname()[1]))
    assert refused.returncode == 1
    assert "in use by another program" in refused.stderr
    assert "Traceback" not in refused.stderr
