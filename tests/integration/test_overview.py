"""The live picture on a real RabbitMQ and on both stores, and with one of them away."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from floodgate.broker.amqp import queue_admin, topology
from floodgate.broker.amqp.connections import Connections
from floodgate.broker.errors import RabbitMQUnreachableError, StateUnavailableError
from floodgate.broker.messages import queue_names
from floodgate.broker.settings.model import Settings
from floodgate.broker.state.activity import ProcessReport, Series
from floodgate.broker.state.stores import open_activity, open_store
from floodgate.overview import queues
from floodgate.overview.reader import OverviewReader
from floodgate.producer.campaigns.operations.service import Campaigns
from floodgate.producer.client import Client
from rabbitmq_node.engine import free_ports
from tests.proxy import Proxy
from tests.services import Vhost
from tests.waiting import until

NOWHERE = "redis://127.0.0.1:{port}/0"


@pytest.fixture(params=["sqlite", "redis"])
def state_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "redis":
        return str(request.getfixturevalue("redis_url"))
    return f"sqlite:///{tmp_path}/state.db"


def settings_for(vhost: Vhost, tmp_path: Path, **given: object) -> Settings:
    fields: dict[str, object] = {
        "rabbitmq_url": vhost.url,
        "state_url": f"sqlite:///{tmp_path}/state.db",
        "campaigns_url": f"sqlite:///{tmp_path}/campaigns.db",
        "bots": {"b": "100200300:" + "A" * 35, "c": "100200301:" + "B" * 35},
        "partitions": 1,
        "update_partitions": 1,
    }
    return Settings(_env_file=None, **{**fields, **given})  # type: ignore[arg-type]


@pytest.fixture
def settings(vhost: Vhost, tmp_path: Path) -> Settings:
    return settings_for(vhost, tmp_path)


def test_the_picture_has_what_rabbitmq_and_the_store_know_of_each_bot(settings: Settings, state_url: str) -> None:
    settings = settings.model_copy(update={"state_url": type(settings.state_url)(state_url)})
    with Client(settings) as client, OverviewReader(settings, "test") as reader:
        client.send_message(42, "hi", bot="b")
        client.send_message(42, "hi", bot="b", priority="bulk")
        client.send_message(42, "later", bot="b", delay=timedelta(hours=1))
        open_store(settings).pause("c", "7", timedelta(minutes=5), "operator")
        reader.read()
        activity = open_activity(settings)
        process = ProcessReport("w", "worker", "here", 7, "0.2.0", timedelta(seconds=5), ("send.b.bulk.00",))
        activity.report(process, {"b": {Series.SENT: 3, Series.WAITS_LINE: 2}})
        overview = reader.read(fresh=True)
    assert [(each.role, each.partitions) for each in overview.processes] == [("worker", ("send.b.bulk.00",))]
    b, c = overview.bots
    assert (b.last_minute.sent[-1], b.last_minute.waits) == (3, (("line", 2),))
    assert b.messages is not None
    assert b.messages.queued == {"interactive": 1, "bulk": 1, "answers": 0, "updates": 0, "dead": 0}
    assert sum(b.messages.unread.values()) == 2
    assert overview.delayed == 1
    assert b.full_rate == pytest.approx(30, abs=1)
    assert c.snapshot is not None
    assert [pause.chat for pause in c.snapshot.pauses] == ["7"]
    assert (overview.rabbitmq.up, overview.store.up) == (True, True)
    assert overview.rabbitmq.text.startswith("version 4.")


def test_queues_made_later_are_counted_and_receivers_too(
    vhost: Vhost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queues, "DISCOVERY", timedelta(0))
    settings = settings_for(vhost, tmp_path)
    with OverviewReader(settings, "test") as reader, Connections(settings, "test") as connections:
        messages = reader.read().bots[0].messages
        assert messages is not None
        assert (messages.queued["bulk"], messages.receivers) == (0, 0)
        queue_admin.declare(connections, topology.pipeline(["b"], 0, update_partitions=1))
        connections.subscribe(queue_names.leader_queue("b"), "1", lambda _: None, lambda: topology.Topology((), (), ()))
        until(lambda: (read := reader.read(fresh=True).bots[0].messages) is not None and read.receivers == 1)


def test_without_rabbitmq_the_picture_shows_why_and_what_the_store_knows(
    vhost: Vhost, settings: Settings, tmp_path: Path
) -> None:
    with (
        Proxy(vhost.node.port) as proxy,
        OverviewReader(settings_for(vhost, tmp_path, rabbitmq_url=proxy.url(vhost.url)), "test") as reader,
    ):
        assert reader.read().rabbitmq.up
        proxy.refuse()
        proxy.cut()
        away = until(lambda: None if (read := reader.read(fresh=True)).rabbitmq.up else read)
        assert isinstance(away.rabbitmq.fault, RabbitMQUnreachableError)
        assert "RabbitMQ" in away.rabbitmq.text
        assert away.store.up
        assert [(bot.messages, bot.snapshot is None) for bot in away.bots] == [(None, False)] * 2


def test_without_the_store_the_picture_shows_why_and_what_rabbitmq_knows(
    settings: Settings, vhost: Vhost, tmp_path: Path
) -> None:
    port = free_ports().amqp
    with OverviewReader(settings_for(vhost, tmp_path, state_url=NOWHERE.format(port=port)), "test") as reader:
        away = reader.read()
    assert isinstance(away.store.fault, StateUnavailableError)
    assert away.rabbitmq.up
    assert [(bot.snapshot, bot.messages is None) for bot in away.bots] == [(None, False)] * 2


def test_without_the_management_api_the_picture_shows_why_and_the_queues(vhost: Vhost, tmp_path: Path) -> None:
    url = f"http://guest:secret@127.0.0.1:{free_ports().amqp}"
    with OverviewReader(settings_for(vhost, tmp_path, rabbitmq_management_url=url), "test") as reader:
        away = until(lambda: each if (each := reader.read()).rabbitmq.up else None)
    assert (away.nodes, away.bots[0].messages is None) == (None, False)
    assert away.disk is not None
    assert isinstance(away.disk.fault, RabbitMQUnreachableError)
    assert "FLOODGATE_RABBITMQ_MANAGEMENT_URL" in away.disk.text
    assert "secret" not in away.disk.text


def test_a_rabbitmq_that_does_not_answer_holds_up_no_read(vhost: Vhost, settings: Settings, tmp_path: Path) -> None:
    with Proxy(vhost.node.port) as proxy:
        proxy.stall()
        silent = settings_for(vhost, tmp_path, rabbitmq_url=proxy.url(vhost.url))
        with OverviewReader(silent, "test", patience=timedelta(seconds=0.3)) as reader:
            read = until(lambda: each if (each := reader.read()).store.up else None)
            assert "RabbitMQ does not answer" in read.rabbitmq.text


def test_a_store_without_a_file_is_read_once_it_has_one(vhost: Vhost, tmp_path: Path) -> None:
    settings = settings_for(vhost, tmp_path)
    with OverviewReader(settings, "test") as reader:
        first = reader.read()
        assert "does not exist yet" in (first.missing_state_file or "")
        assert not (tmp_path / "state.db").exists()
        open_store(settings).pause("b", None, timedelta(minutes=5), "operator")
        later = reader.read(fresh=True)
        assert later.missing_state_file is None
        assert later.bots[0].snapshot is not None
        assert len(later.bots[0].snapshot.pauses) == 1


def test_the_picture_has_the_campaigns_of_a_bot_and_creates_no_database(settings: Settings, tmp_path: Path) -> None:
    with OverviewReader(settings, "test") as reader:
        none = reader.read()
        assert (none.campaigns, none.bots[0].campaigns) == (None, None)
        assert not (tmp_path / "campaigns.db").exists()
        campaigns = Campaigns(settings)
        campaigns.create({"name": "spring", "bot": "c", "content": {"text": "Hello"}}, [{"chat_id": 1}, {"chat_id": 2}])
        campaigns.close()
        b, c = reader.read(fresh=True).bots
    assert b.campaigns == ()
    assert c.campaigns is not None
    [spring] = c.campaigns
    assert (spring.name, spring.state, spring.recipients, spring.left, spring.sent) == ("spring", "ready", 2, 2, 0)


def test_a_reader_is_closed_twice_and_unread(settings: Settings) -> None:
    reader = OverviewReader(settings, "test")
    reader.close()
    reader.close()
