"""A run at DEBUG in which every kind of failure happens, then a search for the tokens in all stored bytes."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from floodgate.broker.admission.contract import Admission
from floodgate.broker.amqp.connections import Connections
from floodgate.broker.messages.publication import Publication
from floodgate.broker.settings.model import Settings, load_settings
from floodgate.broker.state.stores import open_store
from floodgate.fake_telegram.control import ControlClient
from floodgate.fake_telegram.server import running_fake
from floodgate.producer.client import Client
from tests.chaos.hooks import Hooks, run_worker, start
from tests.draining import drain
from tests.processes import run_floodgate
from tests.proxy import Proxy
from tests.services import RedisServer, Vhost
from tests.waiting import until

GOOD, REVOKED = "S3cretOfTheGoodBot" + "g" * 17, "S3cretOfTheRevokedBot" + "r" * 14
BOTS = f'{{"good": "111222333:{GOOD}", "revoked": "444555666:{REVOKED}"}}'
SECRETS = (GOOD, REVOKED)
STOP_SECONDS = 30.0

FAULTS = {
    21: {"kind": "error", "code": 502},
    22: {"kind": "error", "code": 500, "acts": True},
    23: {"kind": "cut_before"},
    24: {"kind": "cut_after"},
    25: {"kind": "stall"},
    26: {"kind": "retry_after_in_400", "seconds": 1},
}
TROUBLES = {31: "blocked", 32: "deactivated", 33: "not_found", 34: "topic_closed", 35: "no_rights"}
# Each occurs for at least one job before the worker is stopped: the failures did happen.
SIGNS = (
    "HTTP 502",
    "HTTP 500",
    "429 for bot good",
    "Telegram refuses bot revoked",
    "chat-unreachable",
    "chat-not-found",
    "rights",
    "malformed message in send.good.interactive.00",
    "expired",
    "cut off: TimeoutError",
    "ServerDisconnectedError",
)


@pytest.fixture(params=["sqlite", "redis"])
def state(
    request: pytest.FixtureRequest, tmp_path: Path, new_redis: Callable[[], RedisServer]
) -> Iterator[tuple[str, Path]]:
    """The URL of a store, and the folder with all its data."""
    if request.param == "redis":
        server = new_redis().start()
        yield server.url, server.home
    else:
        yield f"sqlite:///{tmp_path}/state/state.db", tmp_path / "state"


def test_tokens_never_reach_logs_queues_stores_or_dead_letters(
    state: tuple[str, Path], vhost: Vhost, tmp_path: Path
) -> None:
    url, folder = state
    log = tmp_path / "worker.log"
    with running_fake(tokens=[f"111222333:{GOOD}"]) as fake, Proxy(int(fake.url.rpartition(":")[2])) as link:
        _set_the_scene(fake.control)
        env = _env(vhost.url, url, f"http://127.0.0.1:{link.port}")
        link.refuse()  # the first call cannot connect
        worker = start(talkative_worker, env, log)
        _put_in(env, "good", 20)
        until(lambda: log.exists() and "giving up on job" in log.read_text(), 60)
        link.accept()
        _put_in(env, "good", *FAULTS, *TROUBLES, 27)
        _put_in(env, "revoked", 41)
        _put_in_strange_things(env)
        with contextlib.closing(open_store(_settings(env))) as store:
            until(lambda: not _missing(log, store), 60)
        said = [run_floodgate(*command.split(), env=env, home=tmp_path) for command in SHOWN]
        connections = vhost.node.ctl("list_connections", "name", "user", "client_properties")
        os.kill(worker.pid, signal.SIGTERM)
        worker.join(STOP_SECONDS)
        assert worker.exitcode == 0, log.read_text()[-2000:]
    where = {
        "log": log.read_bytes(),
        "commands": "".join(one.stdout + one.stderr for one in said).encode(),
        "connections": connections.encode(),
        **_queues(vhost),
        **{f"store: {file}": file.read_bytes() for file in folder.rglob("*") if file.is_file()},
    }
    assert [name for name in where if name.startswith("store: ")], "the store left no file to look into"
    assert where["queue: dead.good"], "no dead letter to look into"
    found = [name for name, content in where.items() for secret in SECRETS if secret.encode() in content]
    assert not found


def _missing(log: Path, store: Admission) -> list[str]:
    store.resume("good", None)  # so many errors are an outage, whose end would be found by one call at a time
    said = log.read_text()
    return [sign for sign in SIGNS if sign not in said]


SHOWN = ("status --json", "dead-letters list --json", "topology show", "topology verify")


def talkative_worker() -> None:
    """A worker whose libraries may log everything, as when debugging them."""
    import floodgate.broker.process.logs

    floodgate.broker.process.logs._QUIET = dict.fromkeys(floodgate.broker.process.logs._QUIET, logging.DEBUG)  # type: ignore[misc]
    run_worker(Hooks())


def _set_the_scene(control: ControlClient) -> None:
    control.set_server(faults=[{**fault, "chats": [chat], "times": 1} for chat, fault in FAULTS.items()])
    for chat, trouble in TROUBLES.items():
        control.set_chat(chat, trouble=trouble)
    control.pause(111222333, 1, 27)


def _put_in(env: dict[str, str], bot: str, *chats: int) -> None:
    with Client(_settings(env), bot=bot) as client:
        for chat in chats:
            client.send_message(chat_id=chat, text=f"to {chat}")


def _put_in_strange_things(env: dict[str, str]) -> None:
    """A job that has expired when it is taken, and bytes that are not a job."""
    settings = _settings(env)
    with (
        Connections(settings, "strange") as connections,
        Client(settings, bot="good", connections=connections) as client,
    ):
        client.send_message(chat_id=21, text="too late", expires=0.001)
        connections.publisher.publish(Publication("", "send.good.interactive.00", b'{"no": "job"}', "malformed"))


def _settings(env: dict[str, str]) -> Settings:
    return load_settings(
        _env_file=None,
        rabbitmq_url=env["FLOODGATE_RABBITMQ_URL"],
        state_url=env["FLOODGATE_STATE_URL"],
        bots=json.loads(BOTS),
        partitions=1,
    )


def _env(rabbitmq_url: str, state_url: str, api_url: str) -> dict[str, str]:
    return {
        "FLOODGATE_BOTS": BOTS,
        "FLOODGATE_RABBITMQ_URL": rabbitmq_url,
        "FLOODGATE_STATE_URL": state_url,
        "FLOODGATE_TELEGRAM_API_URL": api_url,
        "FLOODGATE_PARTITIONS": "1",
        "FLOODGATE_UPDATE_PARTITIONS": "1",
        "FLOODGATE_LOG_LEVEL": "DEBUG",
        "FLOODGATE_MAX_ATTEMPTS": "1",  # makes every broken call's description end in a dead letter
        "FLOODGATE_CALL_TIMEOUT_SECONDS": "2",
        "FLOODGATE_LEASE_MARGIN_SECONDS": "1",
        "FLOODGATE_SHUTDOWN_SECONDS": "5",
    }


def _queues(vhost: Vhost) -> dict[str, bytes]:
    """The content of all queues, including properties and headers."""
    names = vhost.ctl("list_queues", "name").splitlines()  # its counts are some seconds old, so all queues are read
    return {
        f"queue: {queue}": b"".join(
            repr(properties.__dict__).encode() + body for properties, body in drain(vhost.url, queue)
        )
        for queue in names
    }
