"""Nothing blocks the worker's loop: heartbeats are sent, sending continues, and SIGTERM ends it.

RabbitMQ considers a peer dead after twice the heartbeat without traffic, or three times at the latest. So each test
keeps its obstacle for longer than that by RabbitMQ's own clock, which a test cannot move, and then checks that the
worker still has its original connections.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from floodgate.broker.messages.partitions import partition_of
from floodgate.broker.process.child_guard import ChildGuard
from tests.acceptance.server import rows
from tests.acceptance.stage import Stage
from tests.acceptance.updates.post import Post
from tests.processes import FloodgateProcess
from tests.services import Vhost
from tests.waiting import until

HEARTBEAT_SECONDS = 2  # the minimum of the setting
HELD_SECONDS = 4.0 * HEARTBEAT_SECONDS
SHUTDOWN_SECONDS = 3.0
# In addition to calls in flight: session hooks, closing connections, the last log lines, the interpreter's end.
ENDING_SECONDS = 6.0
PARTITIONS = 8
UPLOAD_CHAT = 1
UPLOAD_PARTITION = partition_of(str(UPLOAD_CHAT), PARTITIONS)
TEXT_CHATS = [chat for chat in range(10, 40) if partition_of(str(chat), PARTITIONS) != UPLOAD_PARTITION]
PIPE_BYTES = 4096

Connections = set[str]


@pytest.fixture
def stage(stage: Stage) -> Stage:
    stage.partitions = PARTITIONS
    stage.extra |= {
        "FLOODGATE_HEARTBEAT_SECONDS": str(HEARTBEAT_SECONDS),
        "FLOODGATE_SHUTDOWN_SECONDS": str(SHUTDOWN_SECONDS),
        "FLOODGATE_CALL_TIMEOUT_SECONDS": "2",
    }
    return stage


def connections(vhost: Vhost, pid: int) -> Connections:
    """The process's connections to RabbitMQ, by port."""
    listed = rows(vhost, "list_connections", "name", "vhost", "client_properties")
    mine = [row for row in listed if row["vhost"] == vhost.name and f" {pid}" in str(row["client_properties"])]
    return {str(row["name"]) for row in mine}


@contextlib.contextmanager
def kept_connections(vhost: Vhost, pid: int) -> Iterator[None]:
    """Lasts at least :data:`HELD_SECONDS` and checks that the process keeps its connections throughout."""
    before, began = connections(vhost, pid), time.monotonic()
    assert before
    yield
    until(lambda: time.monotonic() >= began + HELD_SECONDS, HELD_SECONDS + 1)
    assert connections(vhost, pid) == before


def stops_in_time(worker: FloodgateProcess) -> bool:
    """Returns whether it ends by itself on SIGTERM, with 0 and within its limit."""
    asked = time.monotonic()
    worker.signal(signal.SIGTERM)
    assert worker.wait(30) == 0
    return time.monotonic() - asked <= SHUTDOWN_SECONDS + ENDING_SECONDS


def send_texts(stage: Stage, word: str) -> list[str]:
    client, texts = stage.client(), [f"{word} {chat}" for chat in TEXT_CHATS]
    client.enqueue_many(
        client.job("sendMessage", chat_id=chat, text=text) for chat, text in zip(TEXT_CHATS, texts, strict=True)
    )
    return texts


@contextlib.contextmanager
def locked(state_file: Path) -> Iterator[None]:
    """Another process, this one, holds the write lock."""
    with contextlib.closing(sqlite3.connect(state_file, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        yield
        db.execute("ROLLBACK")


def test_a_locked_state_file_loses_no_connection_and_sending_resumes_afterwards(stage: Stage, vhost: Vhost) -> None:
    worker = stage.worker()
    with locked(stage.home / "state.db"), kept_connections(vhost, worker.pid):
        texts = send_texts(stage, "locked")
    until(lambda: sorted(stage.sent()) == sorted(texts), 30)
    assert "was lost" not in worker.log


def test_a_worker_stops_while_its_state_file_is_locked_and_the_next_one_sends(stage: Stage) -> None:
    worker = stage.worker()
    with locked(stage.home / "state.db"):
        texts = send_texts(stage, "locked")
        assert stops_in_time(worker)
    stage.worker()
    until(lambda: sorted(stage.sent()) == sorted(texts), 30)


READS_NEVER_END = """
import pathlib
from floodgate.broker.uploads.spool import Upload
from floodgate.cli import main

def read(self, size=-1):
    pathlib.Path("reading").touch()
    return pathlib.Path("never").read_bytes()

Upload.read = read
main()
"""


def never_opens(stage: Stage) -> FloodgateProcess:
    """A worker with a job whose file is a FIFO without a writer."""
    stage.client().send_document(UPLOAD_CHAT, b"a document")
    [spooled] = [path for path in (stage.home / "spool" / "jobs").rglob("*") if path.is_file()]
    spooled.unlink()
    os.mkfifo(spooled)
    return FloodgateProcess("worker", env=stage.env, home=stage.home)


def never_reads(stage: Stage) -> FloodgateProcess:
    """A worker with a job whose file opens but whose disk then does not respond."""
    stage.client().send_document(UPLOAD_CHAT, b"a document")
    os.mkfifo(stage.home / "never")
    (stage.home / "worker_of_a_stalled_disk.py").write_text(READS_NEVER_END)
    return FloodgateProcess("worker", env=stage.env, home=stage.home, module="worker_of_a_stalled_disk")


def waits_for_file(process: FloodgateProcess) -> bool:
    """Returns whether one of its threads waits for a FIFO's writer, according to the kernel."""
    tasks = Path(f"/proc/{process.pid}/task").iterdir()
    return any("wait_for_partner" in (task / "wchan").read_text() for task in tasks)


@pytest.mark.parametrize("obstacle", [pytest.param(never_opens, marks=pytest.mark.full_length), never_reads])
def test_a_hanging_file_loses_no_connection_and_does_not_delay_other_chats(
    stage: Stage, vhost: Vhost, obstacle: Callable[[Stage], FloodgateProcess]
) -> None:
    worker = obstacle(stage)
    with worker.start("worker ready"):
        with kept_connections(vhost, worker.pid):
            texts = send_texts(stage, "beside a file")
            until(lambda: set(stage.sent()) >= set(texts), 20)
        assert "was lost" not in worker.log
        until(lambda: waits_for_file(worker))
        assert stops_in_time(worker)


class MuteWorker(FloodgateProcess):
    """A worker at DEBUG whose standard error is a full pipe that is not read."""

    def begin(self) -> None:
        reader, writer = os.pipe()
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        os.write(writer, b"x" * fcntl.fcntl(writer, fcntl.F_GETPIPE_SZ))
        self._reader = reader  # kept open: otherwise a write would fail instead of waiting
        self._process = subprocess.Popen(self._command, env=self._env, cwd=self._home, stdout=writer, stderr=writer)
        self._guard = ChildGuard(["kill", "-s", "KILL", str(self.pid)])
        os.close(writer)

    def kill(self) -> None:
        super().kill()
        os.close(self._reader)


@pytest.fixture
def mute_worker(stage: Stage) -> Iterator[FloodgateProcess]:
    worker = MuteWorker("worker", env={**stage.env, "FLOODGATE_LOG_LEVEL": "DEBUG"}, home=stage.home)
    worker.begin()
    with worker:
        yield worker


def test_an_unread_stderr_loses_no_connection_and_sending_continues(
    stage: Stage, vhost: Vhost, mute_worker: FloodgateProcess
) -> None:
    stage.client().send_message(chat_id=5, text="so that it is known to work")
    until(lambda: stage.sent())
    with kept_connections(vhost, mute_worker.pid):
        texts = send_texts(stage, "unheard")
        until(lambda: set(stage.sent()) >= set(texts), 20)
    texts = send_texts(stage, "still unheard")
    until(lambda: set(stage.sent()) >= set(texts), 20)
    assert stops_in_time(mute_worker)


BLOCKING_BOT = f"""
import pathlib, time
from floodgate import AsyncClient, Update, on_update

@on_update
async def answer(update: Update, client: AsyncClient) -> None:
    pathlib.Path("begun").touch()
    time.sleep({HELD_SECONDS + 1})
    pathlib.Path("ended").touch()
"""


def test_a_handler_that_blocks_its_loop_loses_no_connection(stage: Stage, vhost: Vhost) -> None:
    stage.extra |= {"FLOODGATE_SHUTDOWN_SECONDS": "15"}
    (stage.home / "their_bot.py").write_text(BLOCKING_BOT)
    post = Post(stage.settings)
    worker = FloodgateProcess("worker", "--updates", "their_bot:answer", env=stage.env, home=stage.home)
    with contextlib.closing(post), worker.start("worker ready"):
        post.says(7, "hello")
        until((stage.home / "begun").exists)
        with kept_connections(vhost, worker.pid):
            assert not (stage.home / "ended").exists()
        until((stage.home / "ended").exists)
        assert "was lost" not in worker.log
        assert stops_in_time(worker)
