"""The real parts of a chaos run: RabbitMQ, Redis or a state file, the fake Bot API, workers, producers, the links.

    producers ─▶ proxy ─▶ RabbitMQ ◀─ one proxy per worker ◀─ workers ─▶ proxy ─▶ fake Bot API
                                                          workers ─▶ state file (on its own small disk), or Redis

Everything but RabbitMQ and Redis is a child of one forkserver: see :mod:`tests.chaos.hooks`. Used by one thread,
except for faults that end later: those run on timers and affect only their own target.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from floodgate.broker.admission.contract import Admission
from floodgate.broker.amqp import queue_admin, topology
from floodgate.broker.amqp.async_queue_reader import browse
from floodgate.broker.amqp.connections import Connections
from floodgate.broker.messages import queue_names
from floodgate.broker.messages.dead_letters import read_dead_letter
from floodgate.broker.settings.model import load_settings
from floodgate.broker.state.stores import open_store
from floodgate.fake_telegram.control import ControlClient
from floodgate.fake_telegram.limits import FloodLimits, Rate
from rabbitmq_node.node import Node
from tests.chaos import telegram
from tests.chaos.faults import Cast
from tests.chaos.hooks import Hooks, start, start_worker, step_clock
from tests.chaos.producing import BLOCKED_USERS, BOT, NEW_GROUP, OLD_GROUP, Work, produce
from tests.proxy import Proxy
from tests.services import RedisServer
from tests.waiting import until

TOKEN = "100200300:" + "C" * 35
READY_SECONDS = 60.0
STOP_SECONDS = 30.0
STATE_MEGABYTES = 24
CALL_TIMEOUT_SECONDS = 3
PARTITIONS = 6
LATENCY_MS = (2.0, 25.0)


class Stage:
    """Set up by ``open``, torn down by ``close``, which may be called at any time and twice."""

    def __init__(self, home: Path, *, redis: bool, workers: int, bot_per_second: int, version: str | None) -> None:
        self.home = home
        self.bot_per_second = bot_per_second
        self.journal = home / "journal"
        self.notebook = home / "notebook"
        self.clock = home / "clock"
        self.node = Node(version)
        self.redis = RedisServer(home) if redis else None
        self.disk = home / "state"
        self.small_disk = False
        self.workers: list[Any] = [None] * workers
        self.producers: dict[int, tuple[Work, Any]] = {}
        self.to_rabbitmq: list[Proxy] = []
        self.kills = 0
        self._fake: Any = None
        self._fake_port = 0
        self._stack = contextlib.ExitStack()
        self._faults: list[dict[str, Any]] = []
        self._lock = threading.Lock()  # guards _faults and the fake's process: faults end on timers

    @property
    def cast(self) -> Cast:
        return Cast(len(self.workers), len(self.producers) or 1, self.redis is not None, self.small_disk)

    @property
    def links(self) -> list[Proxy]:
        return [*self.to_rabbitmq, self.to_fake]

    def open(self) -> None:
        self._stack.callback(self.node.remove)
        self.node.start()
        if self.redis is not None:
            self._stack.callback(self.redis.kill)
            self.redis.start()
        else:
            self._mount_small_disk()
        self._stack.callback(self._end_processes)
        self._fake_port = _free_port()
        self.start_fake()
        self.to_fake = self._stack.enter_context(Proxy(self._fake_port))
        self.to_rabbitmq = [self._stack.enter_context(Proxy(self.node.port)) for _ in range(len(self.workers) + 1)]
        with contextlib.closing(self.store()) as store:
            store.vouch_idle(BOT)
        for number in range(len(self.workers)):
            self.start_worker(number)
        self.await_workers()

    def close(self) -> None:
        self._stack.close()

    # Settings.

    def env(self, link: int) -> dict[str, str]:
        """The settings of a process that reaches RabbitMQ through this link."""
        state = self.redis.url if self.redis is not None else f"sqlite:///{self.disk}/state.db"
        return {
            "FLOODGATE_RABBITMQ_URL": self.to_rabbitmq[link].url(self.node.url),
            "FLOODGATE_STATE_URL": state,
            "FLOODGATE_BOTS": f'{{"{BOT}": "{TOKEN}"}}',
            "FLOODGATE_TELEGRAM_API_URL": f"http://127.0.0.1:{self.to_fake.port}",
            "FLOODGATE_PARTITIONS": str(PARTITIONS),
            "FLOODGATE_UPDATE_PARTITIONS": "1",
            "FLOODGATE_LIMITS__BOT_PER_SECOND": str(self.bot_per_second),
            "FLOODGATE_CALL_TIMEOUT_SECONDS": str(CALL_TIMEOUT_SECONDS),
            "FLOODGATE_LEASE_MARGIN_SECONDS": "1",
            "FLOODGATE_SHUTDOWN_SECONDS": "8",
            "FLOODGATE_HEARTBEAT_SECONDS": "3",
            "FLOODGATE_CONNECT_TIMEOUT_SECONDS": "3",
            "FLOODGATE_CONFIRM_TIMEOUT_SECONDS": "10",
        }

    def settings(self) -> Any:
        """The settings of the test itself, which reaches RabbitMQ without a proxy."""
        state = self.redis.url if self.redis is not None else f"sqlite:///{self.disk}/state.db"
        return load_settings(
            _env_file=None,
            rabbitmq_url=self.node.url,
            state_url=state,
            bots={BOT: TOKEN},
            partitions=PARTITIONS,
            limits={"bot_per_second": self.bot_per_second},
        )

    def store(self) -> Admission:
        return open_store(self.settings())

    # Processes.

    def start_worker(self, number: int) -> None:
        hooks = Hooks(notebook=self.notebook, clock=self.clock)
        self.workers[number] = start_worker(self.env(number), self.home / f"worker-{number}.log", hooks)

    def await_workers(self) -> None:
        logs = [self.home / f"worker-{number}.log" for number in range(len(self.workers))]
        until(lambda: all(log.exists() and "worker ready" in log.read_text() for log in logs), READY_SECONDS)

    def kill_worker(self, number: int) -> None:
        self.workers[number].kill()
        self.workers[number].join()
        self.kills += 1

    def revive(self) -> None:
        """Restarts processes that ended unexpectedly: workers, and producers with work left."""
        for number, worker in enumerate(self.workers):
            if worker is not None and worker.exitcode is not None:
                self.start_worker(number)
        for number, (work, process) in self.producers.items():
            if process.exitcode not in (None, 0):
                self.start_producer(number, work)

    def roll(self) -> None:
        """Sends SIGTERM to each worker in turn, the next one once its successor is up."""
        for number, worker in enumerate(self.workers):
            if worker.exitcode is None:
                os.kill(worker.pid, signal.SIGTERM)
            worker.join(STOP_SECONDS)
            if worker.exitcode is None:
                raise AssertionError(f"worker {number} did not end within {STOP_SECONDS:.0f} s of SIGTERM")
            self.start_worker(number)

    def start_producer(self, number: int, work: Work) -> None:
        ledger, log = self.ledger(number), self.home / f"producer-{number}.log"
        self.producers[number] = (work, start(produce, self.env(-1), log, work, ledger))

    def ledger(self, number: int) -> Path:
        return self.home / f"ledger-{number}"

    def start_fake(self) -> None:
        limits = FloodLimits(bot=Rate(self.bot_per_second, 1.0))
        arguments = (self._fake_port, self.journal, limits, 0)
        self._fake = start(telegram.serve, {}, self.home / "fake.log", *arguments)
        until(lambda: _listens(self._fake_port), READY_SECONDS)
        control = self.control
        control.set_chat(*BLOCKED_USERS, trouble="blocked")
        control.set_chat(OLD_GROUP, trouble="migrated", migrate_to=NEW_GROUP)
        control.set_server(faults=self._faults, latency_ms=LATENCY_MS)

    def kill_fake(self) -> None:
        self._fake.kill()
        self._fake.join()

    @property
    def control(self) -> ControlClient:
        return ControlClient(f"http://127.0.0.1:{self._fake_port}")

    # Lasting faults.

    def add_fault(self, fault: dict[str, Any]) -> Callable[[], None]:
        """Makes the Bot API misbehave until the returned function is called."""
        with self._lock:
            self._faults.append(fault)
            self._tell_fake()

        def end() -> None:
            with self._lock:
                self._faults.remove(fault)
                self._tell_fake()

        return end

    def restart_fake(self, after: float) -> None:
        with self._lock:
            self.kill_fake()
            time.sleep(after)
            self.start_fake()

    def _tell_fake(self) -> None:
        with contextlib.suppress(OSError):  # it is down; start_fake configures it
            self.control.set_server(faults=self._faults, latency_ms=LATENCY_MS)

    def fill_disk(self) -> Callable[[], None]:
        """Leaves no space for the state file until the returned function is called."""
        ballast = self.disk / "ballast"
        with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(b"\0" * 4096):
                pass
        return lambda: ballast.unlink(missing_ok=True)

    def step_clock(self, seconds: float) -> None:
        step_clock(self.clock, seconds)

    def _mount_small_disk(self) -> None:
        """A file system that can be filled, where mounting is allowed; otherwise the disk is never full."""
        self.disk.mkdir()
        options = ["-t", "tmpfs", "-o", f"size={STATE_MEGABYTES}m", "none", str(self.disk)]
        self.small_disk = subprocess.run(["mount", *options], capture_output=True, check=False).returncode == 0
        if self.small_disk:
            self._stack.callback(subprocess.run, ["umount", "--lazy", str(self.disk)], check=False)

    # Contents of RabbitMQ.

    def dead_letters(self) -> dict[str, str]:
        """Reason by text of the job. Malformed bytes and unroutable messages have names of their own."""
        found: dict[str, str] = {}
        with Connections(self.settings(), "chaos") as connections:
            for queue in (queue_names.dead_queue(BOT), queue_names.MALFORMED_QUEUE, queue_names.UNROUTABLE_QUEUE):
                for seen in browse(connections, queue, 100_000):
                    letter = read_dead_letter(queue, seen.message_id, seen.headers, seen.body)
                    text = letter.job.params.get("text", "?") if letter.job else f"{queue}: {seen.message_id}"
                    found.setdefault(str(text), letter.reason if queue == queue_names.dead_queue(BOT) else queue)
        return found

    def not_kept(self) -> dict[str, str]:
        """Reason by id of each dead job without a dead letter."""
        with contextlib.closing(self.store()) as store:
            return {job.job_id: job.reason for job in store.not_kept(BOT, 100_000)}

    def depths(self) -> dict[str, int]:
        """Ready messages in each non-empty queue of the pipeline. Includes the ladder but not dead letters."""
        queues = topology.pipeline([BOT], PARTITIONS).queues
        names = [queue.name for queue in queues if queue.role is not topology.Role.DEAD]
        with Connections(self.settings(), "chaos") as connections:
            return {name: count for name, count in queue_admin.depth(connections, names).items() if count}

    def end_workers(self) -> None:
        for worker in self.workers:
            if worker is not None and worker.exitcode is None:
                os.kill(worker.pid, signal.SIGTERM)
        for worker in self.workers:
            if worker is not None:
                worker.join(STOP_SECONDS)

    def _end_processes(self) -> None:
        children = [self._fake, *self.workers, *(process for _, process in self.producers.values())]
        for child in children:
            if child is not None and child.exitcode is None:
                child.kill()
                child.join()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False
