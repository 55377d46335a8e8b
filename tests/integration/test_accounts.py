"""The RabbitMQ accounts of docs/security.md, row by row on a real server, and Floodgate working with them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Final

import pika
import pytest
import yaml

from floodgate.broker.amqp import queue_admin, topology
from floodgate.broker.amqp.connections import Connections
from floodgate.broker.messages.queue_names import dead_queue, leader_queue, send_queue, updates_queue
from floodgate.broker.settings.model import Settings
from floodgate.producer.client import Client
from tests.accounts import ACCOUNTS, PAGE, Accounts, Channel, permissions
from tests.docs.pages import ROOT
from tests.services import Vhosts

BOT: Final = "default"


def rows() -> list[tuple[str, dict[str, bool]]]:
    """The permissions of each account, according to the page's table."""
    table = PAGE.read_text().partition("| | producer | worker | operator |\n")[2].partition("\n\n")[0]
    found = []
    for line in table.splitlines()[1:]:
        what, *answers = [cell.strip() for cell in line.strip("|").split("|")]
        found.append(
            (what, {name: {"yes": True, "no": False}[said] for name, said in zip(ACCOUNTS, answers, strict=True)})
        )
    return found


@pytest.fixture(scope="module")
def accounts(vhosts: Vhosts) -> Iterator[Accounts]:
    vhost = vhosts.take()
    made = Accounts(vhost)
    with pika.BlockingConnection(pika.URLParameters(vhost.url)) as connection:
        channel = connection.channel()
        channel.queue_declare("not-ours", durable=True)
    declare_by(made, "operator")
    yield made
    made.remove()
    vhosts.give_back(vhost)


def declare_by(accounts: Accounts, account: str) -> None:
    settings = Settings(_env_file=None, rabbitmq_url=accounts.url(account))
    connections = Connections(settings, "test")
    try:
        queue_admin.declare(connections, topology.pipeline([BOT], 1, update_partitions=1))
    finally:
        connections.stop()


def publish(exchange: str, key: str) -> Callable[[Channel], object]:
    return lambda channel: channel.basic_publish(exchange, key, b"not a job", mandatory=exchange == "")


def consume(queue: str) -> Callable[[Channel], object]:
    return lambda channel: channel.basic_consume(queue, lambda *_: None)


SEND, UPDATES, DEAD = send_queue(BOT, "bulk", 0), updates_queue(BOT, 0), dead_queue(BOT)
ACTS: Final[dict[str, list[Callable[[Channel], object]]]] = {
    "enqueue a job, now": [publish("", SEND)],
    "enqueue a job for later": [publish(f"floodgate.delay.{level:02}", "0.0") for level in (0, 5, 27)],
    "publish anything to any queue: forge an update, a dead letter, a receiver's token": [
        publish("", queue) for queue in (UPDATES, DEAD, leader_queue(BOT))
    ],
    "count the messages in a queue": [
        lambda channel, queue=queue: channel.queue_declare(queue, passive=True) for queue in (SEND, DEAD)
    ],
    "take jobs": [consume(SEND)],
    "take updates": [consume(UPDATES)],
    "become the active receiver": [consume(leader_queue(BOT))],
    "write a dead letter by its exchange": [publish("floodgate.dead", DEAD)],
    "read dead letters": [lambda channel: channel.basic_get(DEAD)],
    "empty a queue of jobs": [lambda channel: channel.queue_purge(SEND)],
    "empty a queue of dead letters": [lambda channel: channel.queue_purge(DEAD)],
    "create a queue": [lambda channel: channel.queue_declare("send.other.bulk.00", durable=True)],
    "delete a queue": [lambda channel: channel.queue_delete("send.other.bulk.00")],
    "touch a queue that is not Floodgate's": [
        lambda channel: channel.queue_purge("not-ours"),
        lambda channel: channel.queue_declare("not-ours", durable=True),
        lambda channel: channel.queue_delete("not-ours"),
        consume("not-ours"),
    ],
}


def test_the_page_and_this_file_list_the_same_rows() -> None:
    assert [what for what, _ in rows()] == list(ACTS)
    assert set(permissions()) == set(ACCOUNTS)


@pytest.mark.parametrize("account", ACCOUNTS)
@pytest.mark.parametrize(("what", "answers"), rows(), ids=[what for what, _ in rows()])
def test_an_account_has_exactly_the_documented_permissions(
    accounts: Accounts, what: str, answers: dict[str, bool], account: str
) -> None:
    assert {accounts.may(account, act) for act in ACTS[what]} == {answers[account]}


def test_a_producer_learns_whether_a_worker_serves_its_bot(
    accounts: Accounts, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(_env_file=None, rabbitmq_url=accounts.url("producer"), partitions=1)
    with Client(settings) as client:
        client.send_message(42, "hi")
    assert "no worker takes the jobs of bot 'default'" in caplog.text
    caplog.clear()
    with pika.BlockingConnection(pika.URLParameters(accounts.url("worker"))) as worker:
        worker.channel().basic_consume(send_queue(BOT, "interactive", 0), lambda *_: None)
        with Client(settings) as client:
            client.send_message(42, "hi")
    assert "no worker" not in caplog.text


def test_compose_grants_the_accounts_the_documented_permissions() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    given = json.loads(compose["configs"]["accounts"]["content"].replace("$$", "$"))
    assert {
        each["user"]: [each["configure"], each["write"], each["read"]] for each in given["permissions"]
    } == permissions()
    assert all(each["vhost"] == "/" for each in given["permissions"])
    tags = {user["name"]: user["tags"] for user in given["users"]}
    assert tags == {"producer": [], "worker": [], "operator": ["monitoring"], "monitor": ["monitoring"]}
    assert all(re.fullmatch(r"\$\{RABBITMQ_[A-Z]+_PASSWORD\}", user["password"]) for user in given["users"])
