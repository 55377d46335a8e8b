"""The peers as contenders: each started by its own command, given the same lines in the same order."""

from __future__ import annotations

import contextlib
import json
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from benchmarks.stage.contenders import Contender, Player, Surroundings
from benchmarks.stage.loads import Lines
from benchmarks.stage.pipeline import TOKEN
from benchmarks.stage.programs import Program
from benchmarks.stage.scenarios import Act, Scenario

SUBMIT_SECONDS: Final = 300.0


@dataclass(frozen=True, slots=True)
class PtbRateLimiter:
    """python-telegram-bot's own limiter: one process, no queue."""

    name: str = "ptb AIORateLimiter"

    def plays(self, scenario: Scenario) -> bool:
        return scenario.peers

    @contextlib.contextmanager
    def on_stage(self, surroundings: Surroundings) -> Iterator[Player]:
        here = surroundings
        arguments = ["-m", "benchmarks.peers.ptb_rate_limiter", here.fake.url, TOKEN]
        program = Program(arguments, {}, here.home / "ptb.log", "listening at").start()
        try:
            yield _HttpPlayer(_url(program), None)
        finally:
            program.stop()


@dataclass(frozen=True, slots=True)
class QueueWorker:
    """A task queue on RabbitMQ: a module with the task, the method that enqueues it, the command that works on it.

    ``{queue}`` in the command stands for its queue.
    """

    name: str
    module: str
    enqueue: str
    command: tuple[str, ...]
    ready_word: str

    def plays(self, scenario: Scenario) -> bool:
        return scenario.peers

    @contextlib.contextmanager
    def on_stage(self, surroundings: Surroundings) -> Iterator[Player]:
        here, queue = surroundings, f"peer-{uuid.uuid4().hex[:6]}"
        env = {
            "BENCH_RABBITMQ_URL": here.rabbitmq_url,
            "BENCH_REDIS_URL": here.redis_url,
            "BENCH_API_URL": here.fake.url,
            "BENCH_TOKEN": TOKEN,
            "BENCH_QUEUE": queue,
        }
        command = [word.format(queue=queue) for word in self.command]
        worker = Program(command, env, here.home / "worker.log", self.ready_word)
        feeding = ["-m", "benchmarks.peers.feeder", self.module, self.enqueue]
        feeder = Program(feeding, env, here.home / "feeder.log", "listening at").start()
        try:
            yield _HttpPlayer(_url(feeder), worker)
        finally:
            worker.stop()
            feeder.stop()


@dataclass(slots=True)
class _HttpPlayer:
    """Lines go to a program by HTTP. Without a worker, it sends by itself from the first line on."""

    url: str
    worker: Program | None

    def submit(self, lines: Lines) -> None:
        body = json.dumps([line.params for line in lines]).encode()
        request = urllib.request.Request(f"{self.url}/submit", data=body, method="POST")
        urllib.request.urlopen(request, timeout=SUBMIT_SECONDS).close()

    def begin(self) -> None:
        if self.worker is not None:
            self.worker.start().ready_line()

    def change(self, act: Act) -> None:
        raise ValueError(f"{act} is not played by peers")


def _url(program: Program) -> str:
    return "http" + program.ready_line().rpartition("http")[2]


PEERS: Final[tuple[Contender, ...]] = (
    PtbRateLimiter(),
    QueueWorker(
        "dramatiq rate_limits",
        "benchmarks.peers.dramatiq_rate_limits",
        "send",
        ("-m", "dramatiq", "benchmarks.peers.dramatiq_rate_limits", "-p", "1", "-Q", "{queue}"),
        "ready for action",
    ),
    QueueWorker(
        "celery rate_limit",
        "benchmarks.peers.celery_rate_limit",
        "delay",
        (
            "-m",
            "celery",
            "-A",
            "benchmarks.peers.celery_rate_limit",
            "worker",
            "-P",
            "prefork",
            "-c",
            "8",
            "-l",
            "INFO",
        ),
        " ready.",
    ),
)
