"""A user's own actors under Dramatiq's own command, together with our actors."""

from __future__ import annotations

from tests.acceptance.stage import Stage
from tests.processes import FloodgateProcess, run_python
from tests.waiting import until

TASKS = """
import dramatiq
from floodgate.broker.worker.setup import current_broker
from floodgate import Client

broker = current_broker()
client = Client()

@dramatiq.actor
def total(prices):
    return sum(prices)

@dramatiq.actor(queue_name="messages")
def tell(chat_id, amount):
    client.send_message(chat_id=chat_id, text=f"That makes {amount}")

@dramatiq.actor(queue_name="messages", max_retries=0, on_failure="apologise")
async def fail():
    raise LookupError

@dramatiq.actor(queue_name="messages")
def apologise(message, error):
    client.send_message(chat_id=42, text=error["type"])
"""
ENQUEUE = """
import tasks
tasks.tell.send_with_options(args=(42, 1), delay=200)
(tasks.total.message([3, 4]) | tasks.tell.message(42)).run()
tasks.fail.send()
"""


def start(stage: Stage, *modules: str) -> FloodgateProcess:
    (stage.home / "tasks.py").write_text(TASKS)
    command = (*modules, "--processes", "1", "--threads", "4")
    process = FloodgateProcess(*command, env=stage.env, home=stage.home, name="dramatiq", module="dramatiq")
    return process.start("ready for action")


def test_users_actors_run_in_a_separate_process_and_a_worker_sends(stage: Stage) -> None:
    stage.worker()
    with start(stage, "tasks") as process:
        ended = run_python("-c", ENQUEUE, env=stage.env, home=stage.home)
        assert ended.returncode == 0, ended.stderr
        until(lambda: sorted(stage.sent()) == ["LookupError", "That makes 1", "That makes 7"])
        assert process.stop() == 0


def test_one_process_runs_the_users_actors_and_sends(stage: Stage) -> None:
    with start(stage, "tasks", "floodgate.actors") as process:
        ended = run_python("-c", ENQUEUE, env=stage.env, home=stage.home)
        assert ended.returncode == 0, ended.stderr
        until(lambda: sorted(stage.sent()) == ["LookupError", "That makes 1", "That makes 7"])
        assert process.stop() == 0


def test_messages_wait_for_the_first_worker(stage: Stage) -> None:
    (stage.home / "tasks.py").write_text(TASKS)
    assert run_python("-c", ENQUEUE, env=stage.env, home=stage.home).returncode == 0
    stage.worker()
    with start(stage, "tasks"):
        until(lambda: sorted(stage.sent()) == ["LookupError", "That makes 1", "That makes 7"])
