"""The servers a benchmark runs against: RabbitMQ, Redis, and a fresh Bot API for each contender."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.stage.programs import Program
from floodgate.fake_telegram.control import ControlClient
from rabbitmq_node.engine import free_ports
from rabbitmq_node.node import Node
from rabbitmq_node.process import ProcessGroup

REDIS_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Fake:
    """A running Bot API. What the instant one can be asked is ``control.stats``."""

    url: str
    control: ControlClient
    program: Program


@contextlib.contextmanager
def rabbitmq() -> Iterator[str]:
    """The URL of FLOODGATE_RABBITMQ_URL, or of a private node that goes with the ``with`` block."""
    given = os.environ.get("FLOODGATE_RABBITMQ_URL")
    if given:
        yield given
        return
    with Node() as node:
        yield node.url


@contextlib.contextmanager
def redis() -> Iterator[str]:
    """The URL of a private Redis or Valkey that keeps an append-only file, synced every second.

    Raises:
        FileNotFoundError: neither is installed.
    """
    with tempfile.TemporaryDirectory(prefix="floodgate-redis-") as home:
        port = free_ports().amqp
        flags = ["--bind", "127.0.0.1", "--dir", home, "--save", "", "--appendonly", "yes"]
        command = ["redis-server", "--port", str(port), *flags]
        group = ProcessGroup.start(command, dict(os.environ), Path(home) / "redis.log", guarded=True)
        try:
            _await_redis(port)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            group.stop(REDIS_SECONDS)


def _await_redis(port: int) -> None:
    deadline = time.monotonic() + REDIS_SECONDS
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1.0) as connection:
                connection.sendall(b"PING\r\n")
                if connection.recv(64).startswith(b"+PONG"):
                    return
        except OSError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.02)


@contextlib.contextmanager
def fake_telegram(log: Path, latency_ms: tuple[float, float] = (0, 0), *, limits: bool = True) -> Iterator[Fake]:
    """A fake Telegram as a process of its own."""
    lowest, highest = latency_ms
    arguments = ["-m", "floodgate.fake_telegram", "--port", "0", "--latency-ms", str(lowest), str(highest)]
    program = Program([*arguments, *([] if limits else ["--no-limits"])], {}, log, "ready at http").start()
    try:
        url = "http" + program.ready_line().rpartition("http")[2]
        yield Fake(url, ControlClient(url), program)
    finally:
        program.stop()


@contextlib.contextmanager
def instant_telegram(log: Path) -> Iterator[Fake]:
    """A Bot API that answers at once and judges nothing, as a process of its own."""
    program = Program(["-m", "benchmarks.stage.instant_telegram"], {}, log, "ready at http").start()
    try:
        url = "http" + program.ready_line().rpartition("http")[2]
        yield Fake(url, ControlClient(url), program)
    finally:
        program.stop()
