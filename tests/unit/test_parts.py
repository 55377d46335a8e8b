"""Which parts `floodgate up` runs, and that none is killed before its own bound has passed."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

from floodgate import exporter
from floodgate.broker.errors import InvalidParamsError
from floodgate.broker.settings.model import Settings
from floodgate.producer.campaigns.sending import process as campaigns
from floodgate.producer.gateway import server as gateway
from floodgate.producer.updates import process as updates
from floodgate.supervision.parts import NAMES, PARTS, PartOptions, check_names, part_processes
from floodgate.web.server import DRAIN_SECONDS
from floodgate.worker import CLOSING_SECONDS, HANDLER_CLOSING_SECONDS, LEAVING_SECONDS

HANDLER = "myapp.bot:application"


@pytest.fixture(autouse=True)
def _no_campaigns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


def chosen(*, settings: dict[str, Any] | None = None, **options: Any) -> dict[str, list[str]]:
    """The names and commands of the parts that run."""
    processes = part_processes(PartOptions(Settings(_env_file=None, **settings or {}), **options))
    assert all(process.command[:3] == [sys.executable, "-m", "floodgate"] for process in processes)
    return {process.name: list(process.command[3:]) for process in processes}


def test_without_options_a_worker_the_gateway_and_the_web_pages_run() -> None:
    assert chosen() == {"worker": ["worker"], "gateway": ["gateway"], "web": ["web"]}


def test_several_processes_of_a_part_are_numbered() -> None:
    assert list(chosen(workers=2, handlers=HANDLER, handler_workers=3)) == [
        *("worker-1", "worker-2"),
        *("handlers-1", "handlers-2", "handlers-3"),
        *("updates", "gateway", "web"),
    ]


def test_a_handler_brings_a_receiver_that_polls() -> None:
    assert chosen(handlers=HANDLER) == {
        "worker": ["worker"],
        "handlers": ["worker", "--updates", HANDLER],
        "updates": ["updates", "--mode", "polling"],
        "gateway": ["gateway"],
        "web": ["web"],
    }


def test_a_webhook_in_the_settings_brings_a_receiver_in_that_mode() -> None:
    found = chosen(settings={"updates": {"webhook_url": "https://bots.example.org/tg"}})
    assert found["updates"] == ["updates", "--mode", "webhook"]


def test_campaigns_run_once_there_is_a_database(tmp_path: Path) -> None:
    configured = {"campaigns_url": f"sqlite:///{tmp_path}/elsewhere.db"}
    assert "campaigns" in chosen(settings=configured)
    assert "campaigns" not in chosen()
    (tmp_path / "floodgate").mkdir()
    (tmp_path / "floodgate" / "campaigns.db").touch()
    assert "campaigns" in chosen()


def test_parts_can_be_added_and_left_out() -> None:
    assert list(chosen(added=frozenset({"campaigns"}), left_out=frozenset({"worker", "web"}))) == [
        "campaigns",
        "gateway",
    ]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"added": frozenset({"handlers"})}, "needs --updates MODULE:NAME"),
        ({"workers": 0, "left_out": frozenset({"gateway", "web"})}, "No part is left to run"),
    ],
    ids=["no-handler", "nothing"],
)
def test_a_choice_that_cannot_run_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidParamsError, match=words):
        chosen(**options)


def test_an_unknown_part_is_refused_with_the_names_of_all() -> None:
    with pytest.raises(InvalidParamsError, match=r"'gatway' is not a part\. The parts are worker, .*gateway"):
        check_names(["gatway"])


def test_the_documentation_lists_every_part_in_its_order() -> None:
    page = (Path(__file__).parents[2] / "docs" / "operating.md").read_text()
    assert tuple(re.findall(r"^\| `(\w+)` \| \[?`floodgate ", page, re.MULTILINE)) == NAMES


def test_no_part_is_given_less_time_to_stop_than_it_takes_itself() -> None:
    settings = Settings(_env_file=None)
    working = settings.shutdown_seconds + CLOSING_SECONDS + LEAVING_SECONDS
    own = {
        "worker": working,
        "handlers": working + HANDLER_CLOSING_SECONDS,
        "updates": updates.STOP_SECONDS,
        "campaigns": campaigns.STOP_SECONDS,
        "gateway": settings.gateway.drain_seconds + gateway.CLOSING_SECONDS,
        "metrics": exporter.STOP_SECONDS,
    }
    bounds = {part.name: part.stop_seconds(settings) for part in PARTS}
    assert bounds == own | {"web": bounds["web"]}
    assert bounds["web"] > DRAIN_SECONDS


@pytest.mark.parametrize(
    ("given", "ports"),
    [
        ("9465", ["127.0.0.1:9465", "127.0.0.1:9466"]),
        ("[::1]:9465", ["[::1]:9465", "[::1]:9466"]),
        ("0", ["127.0.0.1:0"] * 2),
    ],
)
def test_each_process_has_a_port_of_its_own_for_metrics(given: str, ports: list[str]) -> None:
    settings = Settings(_env_file=None, metrics_address=given)
    processes = part_processes(PartOptions(settings, left_out=frozenset({"web"})))
    assert [process.env["FLOODGATE_METRICS_ADDRESS"] for process in processes] == ports
