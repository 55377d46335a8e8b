"""What a client reports about a dedupe key, and that an unavailable state store costs it next to nothing."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import pytest

from floodgate.broker.admission.contract import Sent
from floodgate.broker.admission.policy import ask_for
from floodgate.broker.messages.job import Job, decode_job, encode_job, new_job
from floodgate.broker.settings.model import Settings
from floodgate.broker.state.stores import open_store
from floodgate.producer.ledger import Ledger
from floodgate.testing import RecordingClient
from tests.services import free_ports


def settings(url: str) -> Settings:
    return Settings(_env_file=None, state_url=url)


def job(**options: Any) -> Job:
    return new_job("sendMessage", {"chat_id": 5, "text": "hi"}, job_id="one", **options)


def test_enqueueing_reports_whether_the_ledger_knows_the_dedupe_key(tmp_path: Path) -> None:
    mine = settings(f"sqlite:///{tmp_path}/state.db")
    store = open_store(mine)
    store.lookup("default", "")
    ledger = Ledger(mine, "default")
    assert ledger.recognised(job(dedupe_key="k")).known is False
    store.settle(ask_for(job(), mine), Sent(True))
    assert ledger.recognised(job(dedupe_key="k")).known is True
    assert ledger.recognised(job()).known is None, "without a key nothing is asked"
    ledger.close()
    store.close()


def test_a_producer_does_not_create_a_state_file(tmp_path: Path) -> None:
    ledger = Ledger(settings(f"sqlite:///{tmp_path}/state.db"), "default")
    assert ledger.recognised(job(dedupe_key="k")).known is None
    assert list(tmp_path.iterdir()) == []


def test_an_unavailable_store_is_asked_once_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    ledger = Ledger(settings(f"redis://127.0.0.1:{free_ports().amqp}/0"), "default")
    with caplog.at_level(logging.INFO, "floodgate.client"):
        began = time.monotonic()
        assert {ledger.recognised(job(dedupe_key="k")).known for _ in range(1000)} == {None}
    assert time.monotonic() - began < 10
    assert caplog.text.count("cannot check dedupe keys for now") == 1


def test_whether_a_key_is_known_is_not_published() -> None:
    told = job(dedupe_key="k").model_copy(update={"known": True})
    body = encode_job(told, "send.default.interactive.00")
    assert b"known" not in body
    assert decode_job(body) == job(dedupe_key="k").model_copy(update={"created_ms": told.created_ms})


def test_the_recording_client_also_reports_whether_the_key_is_known() -> None:
    client = RecordingClient()
    told = [client.send_message(5, "hi", dedupe_key="k").known for _ in range(2)]
    assert (told, client.send_message(5, "hi").known) == ([False, True], None)
