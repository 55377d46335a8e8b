"""In any import order, actors are bound to Floodgate's broker, and importing has no other effect."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.acceptance.stage import Stage
from tests.processes import FloodgateProcess, run_python
from tests.waiting import until

REPORT = """
import json, sys, threading, dramatiq
import floodgate.actors
from floodgate.broker.worker.setup import current_broker
print(json.dumps({
    "global": type(dramatiq.get_broker()).__name__,
    "is_ours": dramatiq.get_broker() is current_broker() is floodgate.actors.send.broker,
    "declared": sorted(current_broker().actors),
    "url": current_broker().settings.rabbitmq_url.get_secret_value(),
    "threads": [thread.name for thread in threading.enumerate()],
    "sockets": [str(s) for s in opened],
}))
"""
# Any socket would show that a module connects on import.
WATCH = """
import socket
opened = []
class Watched(socket.socket):
    def __init__(self, *args, **options):
        opened.append(args)
        super().__init__(*args, **options)
socket.socket = Watched
"""
# The global broker is another one while our modules are imported: an actor that names no broker is bound to that one.
STRAYS = """
import importlib, json, pkgutil, dramatiq
from dramatiq.brokers.stub import StubBroker
from floodgate.broker.worker.setup import current_broker
ours, foreign = current_broker(), StubBroker()
dramatiq.set_broker(foreign)
import floodgate
for module in pkgutil.walk_packages(floodgate.__path__, "floodgate."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print(json.dumps([sorted(ours.actors), sorted(foreign.actors)]))
"""
URL = "amqp://guest:guest@rabbit.example:5672/"
FIRST = {
    "actors": "import floodgate.actors",
    "broker": "import floodgate.broker",
    "broker, then actors": "import floodgate.broker, floodgate.actors",
    "actors, then broker": "import floodgate.actors, floodgate.broker",
    "the send actor": "import floodgate.actors.send",
    "the settler": "import floodgate.actors.settle",
    "the Dramatiq broker": "import floodgate.broker.worker.dramatiq_broker",
    "the middleware": "import floodgate.broker.worker.middleware.rate_limit",
    "the public face": "import floodgate",
    "the client": "from floodgate import Client",
    "the command line": "import floodgate.cli",
    "the worker": "import floodgate.worker",
    "the producer": "import floodgate.producer",
    "an asked broker": "from floodgate.broker.worker.setup import current_broker; current_broker()",
    "Dramatiq": "import dramatiq",
    "Dramatiq's global broker, asked for first": "import dramatiq; dramatiq.get_broker()",
    "an actor of one's own, on Dramatiq's broker": "import dramatiq; dramatiq.actor(lambda: None, actor_name='mine')",
    "another broker, set first": (
        "import dramatiq; from dramatiq.brokers.stub import StubBroker; dramatiq.set_broker(StubBroker())"
    ),
}


@pytest.mark.parametrize("first", FIRST.values(), ids=FIRST)
def test_actors_are_bound_to_the_configured_broker_in_any_import_order(first: str, tmp_path: Path) -> None:
    ended = run_python("-c", WATCH + first + REPORT, env={"FLOODGATE_RABBITMQ_URL": URL}, home=tmp_path)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert found["global"] == "FloodgateBroker"
    assert found["is_ours"]
    assert "send" in found["declared"]
    assert found["url"] == URL
    assert found["threads"] == ["MainThread"]
    assert found["sockets"] == []


def test_every_actor_of_ours_names_its_broker(tmp_path: Path) -> None:
    ended = run_python("-c", STRAYS, env={}, home=tmp_path)
    assert ended.returncode == 0, ended.stderr
    ours, strays = json.loads(ended.stdout)
    assert "send" in ours
    assert strays == []


def test_dramatiqs_own_command_works_on_the_configured_broker(stage: Stage) -> None:
    """`dramatiq floodgate.actors` loads the module itself and then asks for the global broker."""
    arguments = ("floodgate.actors", "--processes", "1", "--threads", "4")
    stage.client().send_message(chat_id=42, text="hi")
    process = FloodgateProcess(*arguments, env=stage.env, home=stage.home, name="dramatiq", module="dramatiq")
    with process.start("ready for action") as worker:
        until(lambda: stage.sent() == ["hi"])
        assert worker.stop() == 0


def test_a_client_needs_neither_dramatiq_nor_a_telegram_library(tmp_path: Path) -> None:
    script = (
        "import sys; from floodgate import Client; Client();"
        "print([m for m in ('dramatiq', 'telegram', 'aiohttp', 'floodgate.actors', 'typer') if m in sys.modules])"
    )
    ended = run_python("-c", script, env={}, home=tmp_path)
    assert (ended.returncode, ended.stdout.strip()) == (0, "[]"), ended.stderr


def test_settings_given_after_import_apply_to_the_actors_broker(tmp_path: Path) -> None:
    script = (
        "import floodgate.actors; from floodgate.broker.worker.setup import configure;"
        "from floodgate.broker.settings.model import Settings;"
        f"configure(Settings(rabbitmq_url='{URL}', partitions=3));"
        "print(floodgate.actors.send.broker.settings.partitions)"
    )
    ended = run_python("-c", script, env={"FLOODGATE_PARTITIONS": "7"}, home=tmp_path)
    assert (ended.returncode, ended.stdout.strip()) == (0, "3"), ended.stderr


def test_importing_does_not_validate_the_environment(tmp_path: Path) -> None:
    """Django imports everything; a wrong variable is reported when it is used, not on import."""
    ended = run_python(
        "-c", "import floodgate.actors, floodgate.broker", env={"FLOODGATE_PARTITIONS": "many"}, home=tmp_path
    )
    assert ended.returncode == 0, ended.stderr
