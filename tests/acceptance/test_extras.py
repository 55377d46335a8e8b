"""Each extra's command runs with what the extra installs, and any other command names the extra that it needs."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from floodgate.cli import EXIT_USAGE
from tests.acceptance.gateway.programs import GatewayProcess
from tests.acceptance.stage import TOKEN, Stage
from tests.processes import ROOT, FloodgateProcess, run_floodgate, run_python

pytestmark = pytest.mark.checkout  # it reads pyproject.toml
# What is imported, where its name is not the distribution's.
MODULES = {
    "opentelemetry-exporter-otlp-proto-http": "opentelemetry.exporter",
    "opentelemetry-sdk": "opentelemetry.sdk",
    "prometheus-client": "prometheus_client",
    "python-multipart": "python_multipart",
    "python-telegram-bot": "telegram",
}
Blocked = Callable[[str], dict[str, str]]


def installed_by(extra: str, extras: dict[str, list[str]]) -> set[str]:
    """The modules that an extra installs beside the base."""
    found: set[str] = set()
    for requirement in extras.get(extra, ()):
        name, _, own = requirement.partition(">=")[0].partition("[")
        if name == "telegram-floodgate":
            found |= set().union(*(installed_by(each, extras) for each in own.rstrip("]").split(",")))
        else:
            found.add(MODULES.get(name, name))
    return found


@pytest.fixture
def only(tmp_path: Path) -> Blocked:
    """The environment of an interpreter that has an extra's modules and no other's."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]

    def environment(extra: str) -> dict[str, str]:
        missing = sorted(installed_by("all", extras) - installed_by(extra, extras))
        lines = f"import sys\nfor name in {missing}:\n    sys.modules[name] = None\n"
        (tmp_path / "blocked").mkdir(exist_ok=True)
        (tmp_path / "blocked" / "sitecustomize.py").write_text(lines)
        return {"PYTHONPATH": f"{tmp_path}/blocked:{ROOT}"}

    return environment


@pytest.mark.parametrize(
    ("extra", "command", "ready"),
    [
        ("worker", ("worker",), "worker ready"),
        ("gateway", ("gateway", "--port", "0"), "gateway is ready"),
        ("gateway", ("updates",), "ready"),
        ("web", ("web", "--address", "127.0.0.1:0"), "ready"),
        ("fake", ("fake-telegram", "--port", "0"), "ready"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else None,
)
def test_an_extra_has_what_its_command_needs(
    stage: Stage, only: Blocked, extra: str, command: tuple[str, ...], ready: str
) -> None:
    stage.keep(FloodgateProcess(*command, env={**stage.env, **only(extra)}, home=stage.home)).start(ready)


@pytest.mark.parametrize("command", [["status"], ["dead-letters", "list"], ["doctor"], ["send", "--chat", "1"]])
def test_the_cli_extra_has_what_operators_need(stage: Stage, only: Blocked, command: list[str]) -> None:
    ended = run_floodgate(*command, env={**stage.env, **only("cli")}, home=stage.home)
    assert "install telegram-floodgate" not in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("extra", "command", "missing"),
    [
        ("", "status", "telegram-floodgate[cli]"),
        ("", "worker", "telegram-floodgate[worker]"),
        ("uploads", "gateway", "telegram-floodgate[gateway]"),
        ("redis", "fake-telegram", "telegram-floodgate[fake]"),
        ("fake", "worker", "telegram-floodgate[worker]"),
        ("worker", "gateway", "telegram-floodgate[gateway]"),
        ("cli", "top", "telegram-floodgate[top]"),
        ("worker", "updates", "telegram-floodgate[gateway]"),
        ("campaigns", "web", "telegram-floodgate[web]"),
    ],
)
def test_a_command_names_the_extra_that_it_needs(
    stage: Stage, only: Blocked, extra: str, command: str, missing: str
) -> None:
    ended = run_floodgate(command, env={**stage.env, **only(extra)}, home=stage.home)
    assert (ended.returncode, ended.stdout) == (EXIT_USAGE, "")
    assert missing in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize("client", ["Client", "AsyncClient"])
def test_the_campaigns_of_a_client_name_the_extra_that_they_need(stage: Stage, only: Blocked, client: str) -> None:
    program = f"from floodgate import {client}\n{client}().campaigns"
    ended = run_python("-c", program, env={**stage.env, **only("cli")}, home=stage.home)
    assert "SettingsError: Campaigns need" in ended.stderr
    assert "install telegram-floodgate[campaigns]." in ended.stderr.splitlines()[-1]


def test_a_gateway_without_the_extra_of_campaigns_answers_501_and_names_it(
    stage: Stage, only: Blocked, tmp_path: Path
) -> None:
    with GatewayProcess({**stage.env, "FLOODGATE_GATEWAY__PORT": "0", **only("gateway")}, tmp_path) as process:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        answer = httpx.get(f"{process.url}/floodgate/v1/campaigns", headers=headers)
        assert answer.status_code == 501
        assert "install telegram-floodgate[campaigns]" in answer.json()["description"]
