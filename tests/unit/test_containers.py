"""docker-compose.yml, the Dockerfile and their references: read without an engine, and by the compose plugin if any."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from floodgate.broker.settings.gateway import GatewaySettings
from floodgate.broker.settings.model import Settings
from floodgate.cli import app
from floodgate.producer.gateway.server import CLOSING_SECONDS
from rabbitmq_node.choice import OLDEST, parse_version
from rabbitmq_node.conf import read_conf, write_definitions

ROOT = Path(__file__).parents[2]
# The private node's folder is created by rabbitmq_node/conf.py.
DEFINITIONS = {
    ROOT / "docker-compose.yml": {"/etc/floodgate/definitions/10-floodgate.json": "definitions.json"},
    ROOT / "rabbitmq_node" / "compose.yaml": {"/etc/floodgate/definitions": "definitions"},
}
COMPOSE_FILES = (ROOT / "docker-compose.yml", ROOT / "rabbitmq_node" / "compose.yaml")


def load(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(path.read_text())
    return loaded


def services() -> dict[str, Any]:
    found: dict[str, Any] = load(ROOT / "docker-compose.yml")["services"]
    return found


def compose_plugin() -> bool:
    docker = shutil.which("docker")
    return docker is not None and subprocess.run([docker, "compose", "version"], capture_output=True).returncode == 0


def test_the_services_are_the_documented_ones() -> None:
    assert set(services()) == {"rabbitmq", "valkey", "operator", "worker", "gateway", "updates", "fake-telegram"}
    profiles = {name: services()[name]["profiles"] for name in ("gateway", "updates", "fake-telegram")}
    assert profiles == {"gateway": ["gateway"], "updates": ["updates"], "fake-telegram": ["demo"]}
    assert all("profiles" not in services()[name] for name in ("rabbitmq", "valkey", "worker"))


def test_every_service_can_be_scaled() -> None:
    for name, service in services().items():
        assert not {"container_name", "ports"} & set(service), name


@pytest.mark.parametrize("name", ["worker", "gateway", "updates"])
def test_services_wait_until_their_servers_are_healthy(name: str) -> None:
    waits = services()[name]["depends_on"]
    assert {name: wait["condition"] for name, wait in waits.items()} == {
        "rabbitmq": "service_healthy",
        "valkey": "service_healthy",
        "operator": "service_completed_successfully",
    }
    assert all("healthcheck" in services()[name] for name in waits if name != "operator")


def test_the_operator_declares_the_queues_before_they_are_used() -> None:
    operator = services()["operator"]
    assert operator["command"] == ["topology", "apply"]
    assert operator["restart"] == "on-failure", "it ends, and is not started again"
    assert CliRunner().invoke(app, [*operator["command"], "--help"]).exit_code == 0


def test_each_service_has_its_own_rabbitmq_account_and_none_is_guest() -> None:
    urls = {name: service.get("environment", {}).get("FLOODGATE_RABBITMQ_URL") for name, service in services().items()}
    users = {name: url.removeprefix("amqp://").partition(":")[0] for name, url in urls.items() if url}
    assert users == {
        "operator": "operator",
        "worker": "worker",
        "updates": "worker",
        "gateway": "producer",
        "fake-telegram": "worker",  # it uses none
    }
    assert all(re.search(r":\$\{RABBITMQ_[A-Z]+_PASSWORD:\?", url) for url in urls.values() if url)
    assert "guest" not in (ROOT / "docker-compose.yml").read_text()


def test_a_worker_gets_time_to_finish() -> None:
    grace = int(services()["worker"]["stop_grace_period"].removesuffix("s"))
    assert grace > Settings.model_fields["shutdown_seconds"].default


def test_gateway_callers_get_time_to_receive_their_results() -> None:
    grace = int(services()["gateway"]["stop_grace_period"].removesuffix("s"))
    assert grace > GatewaySettings.model_fields["drain_seconds"].default + CLOSING_SECONDS


def test_the_gateway_listens_at_its_health_check_address_and_shares_the_workers_state() -> None:
    gateway, worker = services()["gateway"], services()["worker"]
    assert f":{gateway['environment']['FLOODGATE_GATEWAY__PORT']}/ready" in gateway["healthcheck"]["test"][-1]
    assert gateway["volumes"] == worker["volumes"]
    assert {**gateway["environment"], **worker["environment"]} == gateway["environment"] | {
        "FLOODGATE_RABBITMQ_URL": worker["environment"]["FLOODGATE_RABBITMQ_URL"]
    }


def test_every_command_is_one_of_ours() -> None:
    commands = {
        service["command"][0] for service in services().values() if service.get("image") == "telegram-floodgate"
    }
    assert commands == {"topology", "worker", "gateway", "updates", "fake-telegram"}
    for command in commands:
        assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0, command


def test_only_settings_that_exist_are_set() -> None:
    known = {f"FLOODGATE_{name.upper()}" for name in Settings.model_fields}
    known |= {f"FLOODGATE_GATEWAY__{name.upper()}" for name in GatewaySettings.model_fields}
    named = {name for service in services().values() for name in service.get("environment", ())}
    named |= set(re.findall(r"FLOODGATE_[A-Z_]+(?==)", (ROOT / "Dockerfile").read_text()))
    assert named <= known
    assert len(named) >= 8


@pytest.mark.parametrize("path", COMPOSE_FILES, ids=lambda path: path.name)
def test_rabbitmq_is_4_and_reads_our_files(path: Path) -> None:
    service = load(path)["services"]["rabbitmq"]
    tag = re.sub(r"\$\{[A-Z_]+:-(.+)\}", r"\1", service["image"].partition(":")[2])
    assert parse_version(tag if "." in tag else f"{tag}.0") >= OLDEST
    mounted = {volume.split(":")[-2]: Path(volume.split(":")[-3]).name for volume in service["volumes"][:4]}
    assert mounted == {
        "/etc/rabbitmq/conf.d/20-floodgate.conf": "rabbitmq.conf",
        "/etc/rabbitmq/enabled_plugins": "enabled_plugins",
        **DEFINITIONS[path],
        "/etc/rabbitmq/advanced.config": "advanced.config",
    }


def test_every_mounted_path_exists() -> None:
    volumes = [volume for service in services().values() for volume in service.get("volumes", ())]
    files = [ROOT / volume.partition(":")[0] for volume in volumes if volume.startswith("./")]
    assert len(files) == 4
    assert all(file.is_file() for file in files)


def test_only_the_definitions_of_a_private_node_contain_an_account(tmp_path: Path) -> None:
    write_definitions(tmp_path)
    ours, accounts = (json.loads(path.read_text()) for path in sorted((tmp_path / "definitions").iterdir()))
    assert ours == json.loads((ROOT / "rabbitmq" / "definitions.json").read_text())
    assert ours.keys() == {"vhosts", "policies"}
    assert ours["vhosts"] == [{"name": "/"}]
    assert [user["name"] for user in accounts["users"]] == ["guest"]


def test_rabbitmq_reads_the_folder_of_definitions_and_accounts() -> None:
    folder = read_conf((ROOT / "rabbitmq" / "rabbitmq.conf").read_text())["definitions.local.path"]
    service = services()["rabbitmq"]
    (accounts,) = service["configs"]
    assert accounts["target"] == f"{folder}/20-accounts.json"
    assert any(f":{folder}/10-floodgate.json:ro" in volume for volume in service["volumes"])


@pytest.mark.checkout
def test_the_image_uses_only_files_in_the_build_context() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = set()
    for line in (ROOT / "Dockerfile").read_text().splitlines():
        if line.startswith("COPY ") and "--from" not in line:
            copied |= set(line.split()[1:-1])
    assert copied == allowed
    assert all((ROOT / name).exists() for name in copied)


def test_the_image_runs_as_an_unprivileged_user_and_its_packages_are_hashed() -> None:
    stages = (ROOT / "Dockerfile").read_text().split("\nFROM ")
    assert re.search(r"^USER floodgate$", stages[-1], re.MULTILINE)
    fetches = re.findall(r"pip (?:install|wheel) (.+)", stages[-2])
    assert len(fetches) == 4
    assert all(re.search(r"--require-hashes|--no-index|--no-deps", options) for options in fetches)


def test_every_pin_is_hashed_and_names_no_index() -> None:
    text = (ROOT / "constraints.txt").read_text()
    pins = re.split(r"\n(?=[a-z])", text)[1:]
    assert len(pins) > 30
    assert all("==" in pin and "--hash=sha256:" in pin for pin in pins)
    assert not re.search(r"https?:|--(extra-)?index|--find-links|file:", text)


def test_every_dependency_of_the_project_is_pinned() -> None:
    described = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = described["project"]
    groups = [
        project["dependencies"],
        *project["optional-dependencies"].values(),
        described["dependency-groups"]["dev"],
    ]
    groups.append(described["build-system"]["requires"])
    asked = {re.split(r"[\[<>=!~; ]", line)[0].lower() for group in groups for line in group} - {project["name"]}
    pinned = set(re.findall(r"^([a-z0-9.-]+)==", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    assert asked <= pinned, "run scripts/lock"


@pytest.mark.parametrize("path", COMPOSE_FILES, ids=lambda path: path.name)
def test_the_compose_plugin_accepts_the_file(path: Path) -> None:
    if not compose_plugin():
        pytest.skip("no compose plugin here; the tests above have read the files")
    command = ["docker", "compose", "--file", str(path), "--profile", "*", "config", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
