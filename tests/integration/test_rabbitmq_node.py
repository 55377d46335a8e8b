"""Our own nodes with a real RabbitMQ: they start, stop, restart, and leave nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pika
import pytest

from rabbitmq_node import debootstrap, provision
from rabbitmq_node.amqp import greet
from rabbitmq_node.choice import UseTree
from rabbitmq_node.errors import CommandError, NodeError
from rabbitmq_node.local import LocalEngine
from rabbitmq_node.node import Node
from rabbitmq_node.process import ProcessId
from rabbitmq_node.server import BareChrootServer
from tests.services import RedisServer, Vhost

NewNode = Callable[..., Node]


def put(url: str, queue: str, body: bytes) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.confirm_delivery()
    channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum"})
    channel.basic_publish("", queue, body, pika.BasicProperties(delivery_mode=2), mandatory=True)
    connection.close()


def get(url: str, queue: str) -> bytes | None:
    connection = pika.BlockingConnection(pika.URLParameters(url))
    _, _, body = connection.channel().basic_get(queue)
    connection.close()
    return body


def registration_is_on_disk() -> None:
    """RabbitMQ itself (4.0.5 and 4.3.6 tried) forgets a quorum queue declared within the last second when it is killed.

    Its list of members is written later, by a timer that no command reports: hence a wait by the clock. Messages
    need no such wait.
    """
    time.sleep(1.5)


def test_a_started_node_responds_and_is_new_enough(rabbitmq: Node) -> None:
    greeting = greet("127.0.0.1", rabbitmq.port)
    assert greeting is not None
    assert greeting.product == "RabbitMQ"
    assert greeting.version == rabbitmq.version
    assert rabbitmq.version.startswith("4.")


def test_starting_twice_gives_the_same_node(rabbitmq: Node) -> None:
    url = rabbitmq.url
    assert rabbitmq.start().url == url


def test_a_vhost_is_empty_and_private(vhost: Vhost) -> None:
    put(vhost.url, "mine", b"x")
    queues = json.loads(vhost.ctl("list_queues", "name", "type", "--formatter=json"))
    assert queues == [{"name": "mine", "type": "quorum"}]
    assert "mine" not in vhost.node.ctl("list_queues", "name")


def test_confirmed_messages_survive_sigkill_and_a_restart(new_node: NewNode) -> None:
    node = new_node().start()
    port = node.port
    put(node.url, "kept", b"through both")
    registration_is_on_disk()
    node.kill()
    assert not node.running()
    assert greet("127.0.0.1", port) is None
    node.start().restart()
    assert node.port == port
    assert get(node.url, "kept") == b"through both"


def test_nodes_run_side_by_side_with_separate_configurations_and_can_be_stopped_twice_or_unstarted(
    rabbitmq: Node, new_node: NewNode
) -> None:
    other = new_node(conf={"heartbeat": "7"})
    other.stop()
    other.kill()
    other.start()
    assert other.port != rabbitmq.port
    assert other.ctl("eval", "application:get_env(rabbit, heartbeat).") == "{ok,7}"
    assert rabbitmq.ctl("eval", "application:get_env(rabbit, heartbeat).") == "{ok,10}"
    other.stop()
    other.stop()
    assert not other.running()
    assert rabbitmq.running()


def test_messages_left_between_two_ladder_levels_by_a_crash_move_on_within_seconds(rabbitmq: Node) -> None:
    setting = "application:get_env(rabbit, dead_letter_worker_publisher_confirm_timeout)."
    assert rabbitmq.ctl("eval", setting) == "{ok,5000}"


def test_a_failed_nodes_consumers_lose_their_queues_at_once(rabbitmq: Node) -> None:
    setting = "application:get_env(rabbit, consumer_disconnected_timeout)."
    assert rabbitmq.ctl("eval", setting) == "{ok,200}"


def test_a_ladder_level_forwards_many_messages_before_the_first_is_confirmed(rabbitmq: Node) -> None:
    setting = "application:get_env(rabbit, dead_letter_worker_consumer_prefetch)."
    assert rabbitmq.ctl("eval", setting) == "{ok,1000}"


def test_a_memory_alarm_can_be_set_and_cleared(rabbitmq: Node, memory_alarm: Callable[[bool], str]) -> None:
    memory_alarm(True)
    assert "memory" in rabbitmq.ctl("eval", "rabbit_alarm:get_alarms().")
    memory_alarm(False)
    assert rabbitmq.ctl("eval", "rabbit_alarm:get_alarms().") == "[]"


def test_our_policies_are_in_force(rabbitmq: Node) -> None:
    policies = json.loads(rabbitmq.ctl("list_policies", "--formatter=json"))
    assert [(policy["name"], policy["pattern"]) for policy in policies] == [("floodgate-send", r"^send\.")]


def test_a_node_from_a_debian_tree_also_works_without_namespaces(
    new_node: NewNode, rabbitmq_version: str | None
) -> None:
    plan = provision.plan(rabbitmq_version)
    if not isinstance(plan, UseTree):
        pytest.skip("nodes come from elsewhere on this machine; there is no tree to run")
    node = new_node(engine=LocalEngine(BareChrootServer(debootstrap.tree(plan.version, plan.suite)))).start()
    assert node.ctl("list_vhosts") == "/"
    assert node.ctl("eval", "rabbit_alarm:get_alarms().") == "[]"
    files = BareChrootServer(debootstrap.cache_folder() / plan.version).files(node.home)
    assert files.is_dir()
    node.remove()
    assert not files.exists()


def test_a_failed_command_gives_its_reason(rabbitmq: Node) -> None:
    with pytest.raises(CommandError, match="nowhere"):
        rabbitmq.ctl("delete_vhost", "nowhere")


def test_a_node_that_cannot_start_shows_its_log(new_node: NewNode) -> None:
    node = new_node(conf={"heartbeat": "soon"})
    with pytest.raises(NodeError, match=r"(?s)exited while starting.*heartbeat"):
        node.start()
    assert not node.running()


def test_a_node_ends_with_its_program_even_after_sigkill() -> None:
    program = "from rabbitmq_node.node import Node; print(Node().start().port, flush=True); input()"
    root = Path(__file__).parents[2]
    owner = subprocess.Popen(
        [sys.executable, "-c", program], cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    port = int(owner.stdout.readline())
    assert greet("127.0.0.1", port) is not None
    owner.kill()
    owner.communicate()
    assert gone_within(10.0, port)


def test_a_node_started_by_a_thread_outlives_the_thread(new_node: NewNode) -> None:
    node = new_node()
    thread = threading.Thread(target=node.start, name="starter")
    thread.start()
    thread.join(60)
    assert node.running()
    assert greet("127.0.0.1", node.port) is not None


def gone_within(seconds: float, port: int) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if greet("127.0.0.1", port) is None:
            return True
        time.sleep(0.05)
    return False


def test_redis_keeps_acknowledged_writes(new_redis: Callable[[], RedisServer]) -> None:
    server = new_redis().start()
    server._ask(b"SET kept 1\r\n", b"+OK")
    server.kill()
    server.start()
    server._ask(b"GET kept\r\n", b"$1\r\n1")


def test_a_container_without_its_engine_is_not_a_running_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = {"project": "floodgate-rabbitmq-1", "version": "4.0", "environment": {}}
    record = {"version": "4.0.5", "ports": {"amqp": 1, "distribution": 2, "mapper": 3}, "engine": engine}
    (tmp_path / "node.json").write_text(json.dumps(record))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert Node.running_in(tmp_path) is None


def test_a_reused_process_id_is_not_mistaken_for_the_node() -> None:
    me = ProcessId.of(os.getpid())
    assert me.alive()
    assert not ProcessId(me.pid, me.started - 1).alive()
    child = subprocess.Popen(["sleep", "60"])
    known = ProcessId.of(child.pid)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not known.alive()
