"""`floodgate updates` as processes: two of them, exactly one active however it ends, and nothing lost."""

from __future__ import annotations

import random
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest

from floodgate.broker.amqp.connections import Connections
from rabbitmq_node.engine import free_ports
from rabbitmq_node.node import Node
from tests.acceptance.stage import BOT, TOKEN, Stage
from tests.processes import FloodgateProcess
from tests.proxy import Proxy
from tests.receiving import count_updates, take_updates
from tests.services import Vhost
from tests.waiting import until

BOT_ID = int(TOKEN.partition(":")[0])
PARTITIONS = 4
LEASE_SECONDS = 2
ACTIVE = "active: this receiver takes the updates"
SETTINGS = {
    "FLOODGATE_UPDATE_PARTITIONS": str(PARTITIONS),
    "FLOODGATE_UPDATES__LEASE_SECONDS": str(LEASE_SECONDS),
    "FLOODGATE_HEARTBEAT_SECONDS": "2",
}

MakeStage = Callable[..., Stage]


class Balancer(Proxy):
    """Forwards each connection to the first port that accepts it."""

    def __init__(self, *ports: int) -> None:
        super().__init__(ports[0])
        self._ports = ports

    def reach(self) -> socket.socket:
        for port in self._ports[:-1]:
            with suppress(OSError):
                return socket.create_connection(("127.0.0.1", port), 5)
        return socket.create_connection(("127.0.0.1", self._ports[-1]), 5)


class Receivers:
    """Two receivers of one stage and their effects.

    Parameters:
        arguments: of the processes, used in turn.
    """

    def __init__(self, stage: Stage, *arguments: tuple[str, ...]) -> None:
        self.stage = stage
        self._arguments = arguments or ((),)
        self.processes: list[FloodgateProcess] = []
        self.said: list[int] = []
        self._started = 0
        self._connections = Connections(stage.settings, "test")
        self._stack = ExitStack()

    def __enter__(self) -> Receivers:
        self._stack.callback(self._connections.stop, 2)
        self.processes.append(self._start())
        until(lambda: ACTIVE in self.processes[0].log)
        self.processes.append(self._start())
        return self

    def _start(self) -> FloodgateProcess:
        self._started += 1
        process = FloodgateProcess(
            "updates",
            *self._arguments[self._started % len(self._arguments)],
            env={**self.stage.env, **SETTINGS},
            home=self.stage.home,
            name=f"receiver-{self._started}",
        )
        return self._stack.enter_context(process).start("receiver ready")

    def replace(self, ended: FloodgateProcess) -> None:
        self.processes[self.processes.index(ended)] = self._start()

    def __exit__(self, *raised: object) -> None:
        self._stack.close()

    def say(self, users: int = 20, per_user: int = 5) -> None:
        self.said += self.stage.control.inject_crowd(BOT_ID, users=users, per_user=per_user)

    def waiting(self) -> int:
        return count_updates(self._connections, BOT, PARTITIONS)

    def until_all_are_in(self, seconds: float = 30.0) -> float:
        """Seconds until the queues hold as many updates as were sent; repetitions may hide a missing one for now."""
        began = time.monotonic()
        until(lambda: self.waiting() >= len(self.said), seconds)
        return time.monotonic() - began

    def came(self) -> list[int]:
        """Ids by first arrival, in each chat's order; every chat's order is checked."""
        updates = take_updates(self._connections, BOT, PARTITIONS)
        first = {update.update_id: update for update in updates}
        for chat in {update.chat for update in updates}:
            ids = [update_id for update_id, update in first.items() if update.chat == chat]
            assert ids == sorted(ids), f"chat {chat} is out of order"
        return sorted(first)

    def conflicts(self) -> int:
        return sum(call.code == 409 for call in self.stage.control.arrivals())


@contextmanager
def receivers(stage: Stage, *arguments: tuple[str, ...]) -> Iterator[Receivers]:
    """Two running receivers; at the end nothing is missing or out of order, and neither got a 409."""
    with Receivers(stage, *arguments) as two:
        yield two
        two.until_all_are_in()
        for process in two.processes:
            assert process.stop() in (0, -signal.SIGKILL)
        assert two.came() == two.said
        assert two.conflicts() == 0


def test_sigterm_hands_over_within_seconds_without_a_conflict(stage: Stage) -> None:
    with receivers(stage) as two:
        active, standing_by = two.processes
        two.say()
        two.until_all_are_in()
        two.say()
        assert active.stop() == 0
        two.say()
        assert two.until_all_are_in() < LEASE_SECONDS, "a goodbye spares the wait for the lease"
        assert ACTIVE in standing_by.log
        assert two.waiting() == len(two.said), "nothing came twice"


def test_sigkill_hands_over_within_seconds_without_a_conflict(stage: Stage) -> None:
    with receivers(stage) as two:
        active, standing_by = two.processes
        two.say()
        active.kill()
        two.say()
        assert two.until_all_are_in() < LEASE_SECONDS + 5
        assert ACTIVE in standing_by.log


def test_a_suspended_receiver_does_not_poll_at_the_same_time_as_its_successor(stage: Stage) -> None:
    with receivers(stage) as two:
        active, standing_by = two.processes
        two.say()
        two.until_all_are_in()
        active.signal(signal.SIGSTOP)
        until(lambda: ACTIVE in standing_by.log, 30)  # RabbitMQ first has to miss heartbeats for a while
        two.say()
        two.until_all_are_in()
        active.signal(signal.SIGCONT)
        until(lambda: "standing by" in active.log)
        two.say()
        two.until_all_are_in()


@pytest.mark.full_length
@pytest.mark.timeout(600)
def test_two_minutes_of_random_faults_lose_nothing_and_cause_no_conflict(stage: Stage, vhost: Vhost) -> None:
    chance = random.Random(7)
    with receivers(stage) as two:
        for _ in range(20):
            two.say(users=50, per_user=4)
            struck = chance.choice(two.processes)
            match chance.choice(("kill", "stop", "disconnect", "freeze")):
                case "kill":
                    struck.kill()
                case "stop":
                    assert struck.stop() == 0
                case "disconnect":
                    vhost.ctl("close_all_connections", "a test")
                case "freeze":
                    struck.signal(signal.SIGSTOP)
                    time.sleep(chance.uniform(1, 8))
                    struck.signal(signal.SIGCONT)
            if not struck.running:
                two.replace(struck)
            time.sleep(chance.uniform(0, LEASE_SECONDS * 2))
        two.say()


def test_killing_rabbitmq_during_operation_loses_nothing(new_stage: MakeStage, new_node: Callable[..., Node]) -> None:
    node = new_node().start()
    stage = new_stage(node.url)
    # RabbitMQ records half a second late which log belongs to a new queue: if it is killed before, the queue is empty.
    assert stage.floodgate("topology", "apply", **SETTINGS).returncode == 0
    node.stop()
    node.start()
    with receivers(stage) as two:
        two.say()
        two.until_all_are_in()
        node.kill()
        two.say()
        node.start()
        two.say()
        two.until_all_are_in(60)


def test_when_a_receiver_is_killed_the_other_takes_the_posts(stage: Stage) -> None:
    ports = free_ports().amqp, free_ports().amqp
    with Balancer(*ports) as balancer:
        root = f"http://127.0.0.1:{balancer.port}/tg"
        arguments = [("--mode", "webhook", "--webhook-url", root, "--port", str(port)) for port in ports]
        with receivers(stage, *arguments) as two:
            two.say(users=100, per_user=5)
            until(lambda: two.waiting() > 0)
            next(each for each in two.processes if f":{ports[0]}," in each.log).kill()
            two.say(users=100, per_user=5)
            until(lambda: two.waiting() >= len(two.said), 60)


def test_the_webhook_command_sets_the_webhook_and_accepts_posts(stage: Stage) -> None:
    port = free_ports().amqp
    arguments = ("updates", "--mode", "webhook", "--webhook-url", f"http://127.0.0.1:{port}/tg", "--port", str(port))
    with FloodgateProcess(*arguments, env={**stage.env, **SETTINGS}, home=stage.home, name="webhook") as process:
        process.start("receiver ready")
        assert process.said("receiver ready") == (f"receiver ready: webhook at http://127.0.0.1:{port}, bots {BOT}")
        stage.control.inject_crowd(BOT_ID, users=20, per_user=2)
        connections = Connections(stage.settings, "test")
        until(lambda: count_updates(connections, BOT, PARTITIONS) == 40)
        connections.stop(2)
        assert process.stop() == 0


def test_stopping_is_bounded_even_if_nothing_responds(stage: Stage) -> None:
    env = {**stage.env, **SETTINGS, "FLOODGATE_TELEGRAM_API_URL": "http://127.0.0.1:9"}
    with FloodgateProcess("updates", env=env, home=stage.home, name="lonely") as process:
        process.start("receiver ready")
        until(lambda: "Telegram cannot be reached for deleteWebhook (Connection refused)" in process.log)
        began = time.monotonic()
        assert process.stop() == 0
        assert time.monotonic() - began < 5
        assert "Traceback" not in process.log
        assert TOKEN not in process.log


@pytest.mark.parametrize(
    ("arguments", "env", "code", "words"),
    [
        ((), {"FLOODGATE_BOTS": ""}, 2, "No bot token is set."),
        (("--mode", "webhook"), {}, 2, "Set FLOODGATE_UPDATES__WEBHOOK_URL"),
        (("--mode", "webhook", "--webhook-url", "bots.example.org"), {}, 2, "--webhook-url is not a URL such as"),
        (("--mode", "both"), {}, 2, "'both' is not one of 'polling', 'webhook'"),
        ((), {"FLOODGATE_RABBITMQ_URL": "amqp://127.0.0.1:9/"}, 3, "RabbitMQ at 127.0.0.1:9 cannot be reached"),
        ((), {"FLOODGATE_UPDATES__POLL_SECONDS": "99"}, 2, "FLOODGATE_UPDATES__POLL_SECONDS"),
    ],
)
def test_a_failed_start_gives_one_sentence_and_an_exit_code(
    stage: Stage, arguments: tuple[str, ...], env: dict[str, str], code: int, words: str
) -> None:
    ended = stage.floodgate("updates", *arguments, **env)
    assert (ended.returncode, words in ended.stderr, "Traceback" in ended.stderr) == (code, True, False), ended.stderr


def test_a_port_in_use_gives_one_sentence(stage: Stage) -> None:
    port = stage.telegram_url.rpartition(":")[2]
    ended = stage.floodgate("updates", "--mode", "webhook", "--webhook-url", "http://127.0.0.1:1", "--port", port)
    assert ended.returncode == 2
    assert f"Cannot listen on 127.0.0.1:{port}: Address already in use. Change" in ended.stderr
