"""Floodgate run as docs/security.md recommends: no process needs more of RabbitMQ than its account allows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from floodgate import Client
from floodgate.broker.errors import DeadLetteredError, UnroutableError
from tests.acceptance.conftest import MakeStage
from tests.acceptance.gateway.programs import GatewayProcess
from tests.acceptance.stage import BOT, TOKEN, Stage
from tests.accounts import Accounts
from tests.processes import FloodgateProcess
from tests.services import Vhost
from tests.waiting import until

BOT_ID = int(TOKEN.partition(":")[0])
EXIT_RABBITMQ = 3


@pytest.fixture
def accounts(vhost: Vhost) -> Iterator[Accounts]:
    made = Accounts(vhost)
    yield made
    made.remove()


@pytest.fixture
def stage(new_stage: MakeStage, accounts: Accounts) -> Stage:
    """A stage with a producer's account and queues declared by an operator."""
    stage = new_stage(accounts.url("producer"))
    made = stage.floodgate("topology", "apply", FLOODGATE_RABBITMQ_URL=accounts.url("operator"))
    assert made.returncode == 0, made.stderr
    return stage


def test_every_role_works_with_its_own_account(stage: Stage, accounts: Accounts, tmp_path: Path) -> None:
    as_worker = {"FLOODGATE_RABBITMQ_URL": accounts.url("worker")}
    as_operator = {"FLOODGATE_RABBITMQ_URL": accounts.url("operator")}
    stage.worker(**as_worker)
    client = stage.client()
    assert client.result(client.send_message(1, "now"), timeout=30)["text"] == "now"
    assert client.result(client.send_message(1, "later", delay=timedelta(seconds=0.5)), timeout=30)["text"] == "later"
    refused = client.call("deleteMessage", chat_id=1, message_id=999)
    with pytest.raises(DeadLetteredError):
        client.result(refused, timeout=30)

    with GatewayProcess(stage.env, tmp_path) as gateway:
        sent = httpx.post(f"{gateway.url}/bot{TOKEN}/sendMessage", json={"chat_id": 2, "text": "by HTTP"}, timeout=30)
        assert sent.json()["result"]["text"] == "by HTTP"
        assert httpx.get(f"{gateway.url}/ready").status_code == 200

    receiver = FloodgateProcess("updates", env={**stage.env, **as_worker}, home=stage.home, name="updates")
    with receiver.start("receiver ready"):
        message = {"message_id": 1, "date": 1, "chat": {"id": 1, "type": "private"}, "text": "hi"}
        stage.control.inject_updates(BOT_ID, [{"message": message}])
        assert stage.floodgate("status", "--json", **as_operator).returncode == 0
        until(lambda: waiting_updates(accounts.vhost) == 1, 30)

    letters = stage.floodgate("dead-letters", "list", "--json", **as_operator)
    assert refused.id in letters.stdout, letters.stderr
    assert stage.floodgate("dead-letters", "list", "--json").returncode == EXIT_RABBITMQ, "not the producer's to read"


def waiting_updates(vhost: Vhost) -> int:
    rows = json.loads(vhost.ctl("list_queues", "name", "messages", "--formatter=json"))
    return sum(row["messages"] for row in rows if row["name"].startswith("updates."))


def test_a_producer_gets_an_error_for_undeclared_queues(accounts: Accounts, new_stage: MakeStage) -> None:
    stage = new_stage(accounts.url("producer"))
    with Client(stage.settings) as client:
        for _ in range(2):
            with pytest.raises(UnroutableError, match=f"send.{BOT}.interactive"):
                client.send_message(1, "nowhere")
        made = stage.floodgate("topology", "apply", FLOODGATE_RABBITMQ_URL=accounts.url("operator"))
        assert made.returncode == 0
        assert client.send_message(1, "somewhere").id


@pytest.mark.parametrize("account", ["producer", "worker"])
def test_declaring_queues_with_the_wrong_account_names_the_right_one(
    accounts: Accounts, new_stage: MakeStage, account: str
) -> None:
    ran = new_stage(accounts.url(account)).floodgate("topology", "apply")
    assert ran.returncode == EXIT_RABBITMQ
    assert "may not create queues" in ran.stderr
    assert "operator" in ran.stderr
    assert "exists with other arguments" not in ran.stderr


def test_a_worker_begins_once_the_queues_are_declared(accounts: Accounts, new_stage: MakeStage) -> None:
    stage = new_stage(accounts.url("producer"))
    stage.worker(FLOODGATE_RABBITMQ_URL=accounts.url("worker"))
    made = stage.floodgate("topology", "apply", FLOODGATE_RABBITMQ_URL=accounts.url("operator"))
    assert made.returncode == 0
    client = stage.client()
    assert client.result(client.send_message(1, "at last"), timeout=60)["text"] == "at last"
