"""`floodgate metrics` without a worker, and with RabbitMQ or the store away."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from floodgate.broker.admission.contract import Go
from floodgate.broker.admission.policy import ask_for
from floodgate.broker.messages.job import new_job
from floodgate.broker.process.metrics import TABLE, ProcessRole
from floodgate.broker.settings.model import Settings
from floodgate.broker.state.stores import open_store
from floodgate.exporter import Exporter
from floodgate.producer.client import Client
from tests.services import Vhost

TOKEN = "100200300:" + "A" * 35
NOWHERE = "amqp://guest:guest@127.0.0.1:1"
Series = Mapping[str, Mapping[tuple[str, ...], float]]


def settings(home: Path, rabbitmq_url: str, **others: Any) -> Settings:
    return Settings(
        _env_file=None,
        **{
            "rabbitmq_url": rabbitmq_url,
            "state_url": f"sqlite:///{home}/state.db",
            "campaigns_url": f"sqlite:///{home}/campaigns.db",
            "bots": {"news": TOKEN},
            "partitions": 2,
            "update_partitions": 1,
            **others,
        },
    )


@contextlib.contextmanager
def exporter(settings: Settings) -> Iterator[Exporter]:
    with contextlib.closing(Exporter(settings)) as running:
        yield running


def scraped(exporter: Exporter) -> Series:
    """The samples by name and the values of their labels, in the alphabetical order of the labels."""
    series: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(exporter.text().decode()):
        for sample in family.samples:
            series.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return series


def test_queues_that_nobody_reads_are_seen_without_a_worker(vhost: Vhost, tmp_path: Path) -> None:
    known = settings(tmp_path, vhost.url)
    with Client(known) as client:
        client.send_message(chat_id=42, text="hi")
        client.send_message(chat_id=42, text="hi", priority="bulk")
    with exporter(known) as running:
        series = scraped(running)
    assert series["floodgate_up"] == {("rabbitmq",): 1.0, ("store",): 1.0}
    assert series["floodgate_queue_messages"]["news", "bulk"] == 1.0
    assert series["floodgate_unread_partitions"] == {("news", "send"): 2.0, ("news", "updates"): 0.0}
    assert series["floodgate_dead_letters"] == {("news",): 0.0}
    assert 0 < series["floodgate_store_used_ratio"][()] < 1
    allowed = {metric.name for metric in TABLE if ProcessRole.EXPORTER in metric.roles}
    assert {name for name in series if name.startswith("floodgate_")} <= allowed


def test_without_rabbitmq_the_store_is_still_served(tmp_path: Path) -> None:
    known = settings(tmp_path, NOWHERE)
    with contextlib.closing(open_store(known)) as store:
        ask = ask_for(new_job("sendMessage", {"chat_id": 42, "text": "hi"}, bot="news"), known)
        store.vouch_idle("news")
        assert isinstance(store.admit(ask), Go)
        store.pause("news", "42", timedelta(minutes=1), "429")
        store.pause("news", None, timedelta(minutes=1), "a reason of the operator's own")
    with exporter(known) as running:
        series = scraped(running)
    assert series["floodgate_up"] == {("rabbitmq",): 0.0, ("store",): 1.0}
    assert series["floodgate_calls_in_flight"] == {("news",): 1.0}
    assert series["floodgate_pauses"]["news", "429", "chat"] == 1.0
    assert series["floodgate_pauses"]["news", "other", "bot"] == 1.0
    assert "floodgate_queue_messages" not in series


def test_without_the_store_rabbitmq_is_still_served(vhost: Vhost, tmp_path: Path) -> None:
    (tmp_path / "state.db").mkdir()
    with exporter(settings(tmp_path, vhost.url)) as running:
        series = scraped(running)
    assert series["floodgate_up"] == {("rabbitmq",): 1.0, ("store",): 0.0}
    assert series["floodgate_unread_partitions"]["news", "send"] == 0.0
    assert "floodgate_limit_per_second" not in series


@pytest.mark.parametrize("state_url", ["redis://127.0.0.1:1", "sqlite:///{home}/state.db"])
def test_with_everything_away_there_is_still_an_answer(state_url: str, tmp_path: Path) -> None:
    (tmp_path / "state.db").mkdir()
    with exporter(settings(tmp_path, NOWHERE, state_url=state_url.format(home=tmp_path))) as running:
        assert scraped(running)["floodgate_up"] == {("rabbitmq",): 0.0, ("store",): 0.0}
