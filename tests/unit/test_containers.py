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
from floodgate.broker.settings.web import WebSettings
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
# Of the compose specification, those that we use.
TOP_LEVEL = {"name", "services", "volumes", "configs", "secrets", "networks"}
SERVICE_KEYS = {
    *("build", "image", "init", "restart", "command", "environment", "profiles", "hostname", "volumes", "configs"),
    *("secrets", "ports", "depends_on", "healthcheck", "stop_grace_period", "entrypoint", "user", "labels"),
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
    profiles = {name: service.get("profiles") for name, service in services().items()}
    always = dict.fromkeys(("rabbitmq", "valkey", "operator", "worker"))
    assert profiles == always | {
        "rabbitmq-2": ["cluster"],
        "rabbitmq-3": ["cluster"],
        "gateway": ["gateway"],
        "updates": ["updates"],
        "web": ["web"],
        **{name: ["monitoring"] for name in ("metrics", "prometheus", "grafana")},
        "fake-telegram": ["demo"],
    }


def test_services_use_only_keys_that_compose_knows() -> None:
    for path in COMPOSE_FILES:
        loaded = load(path)
        assert {key for key in loaded if not key.startswith("x-")} <= TOP_LEVEL
        for name, service in loaded["services"].items():
            assert set(service) <= SERVICE_KEYS, name


def test_only_pages_for_a_browser_have_a_port_and_it_is_on_the_loopback() -> None:
    for name, service in services().items():
        assert "container_name" not in service, name
    published = {name: service["ports"] for name, service in services().items() if "ports" in service}
    assert published == {
        "web": ["127.0.0.1:8090:8090"],
        "prometheus": ["127.0.0.1:9090:9090"],
        "grafana": ["127.0.0.1:3000:3000"],
    }


def test_images_of_others_are_pinned_by_version_and_name_no_registry() -> None:
    images = {service["image"] for service in services().values()} - {"telegram-floodgate"}
    assert len(images) == 4
    for image in images:
        assert re.fullmatch(r"([a-z]+/)?[a-z]+:v?\d[\w.-]*", image), image


def test_no_password_is_in_the_file() -> None:
    loaded = load(ROOT / "docker-compose.yml")
    grafana = loaded["services"]["grafana"]
    (secret,) = grafana["secrets"]
    assert grafana["environment"]["GF_SECURITY_ADMIN_PASSWORD__FILE"] == f"/run/secrets/{secret}"
    assert loaded["secrets"] == {secret: {"environment": "GRAFANA_PASSWORD"}}
    assert services()["web"]["environment"]["FLOODGATE_WEB__TOKENS"] == "${FLOODGATE_WEB__TOKENS:-}"


def test_every_service_with_a_port_or_a_server_is_checked() -> None:
    unchecked = {name for name, service in services().items() if "healthcheck" not in service}
    assert unchecked == {"operator", "worker", "updates", "fake-telegram"}


@pytest.mark.parametrize("name", ["worker", "gateway", "updates", "web", "metrics"])
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
        "web": "operator",
        "metrics": "producer",
        "fake-telegram": "worker",  # it uses none
    }
    assert all(re.search(r":\$\{RABBITMQ_[A-Z]+_PASSWORD:\?", url) for url in urls.values() if url)
    asked = {
        name: service.get("environment", {}).get("FLOODGATE_RABBITMQ_MANAGEMENT_URL")
        for name, service in services().items()
    }
    views = {name: url.removeprefix("http://").partition(":")[0] for name, url in asked.items() if url}
    assert views == {"operator": "operator", "web": "operator", "metrics": "monitor"}
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
    assert commands == {"topology", "worker", "gateway", "updates", "web", "metrics", "fake-telegram"}
    for command in commands:
        assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0, command


def test_only_settings_that_exist_are_set() -> None:
    known = {f"FLOODGATE_{name.upper()}" for name in Settings.model_fields}
    known |= {f"FLOODGATE_GATEWAY__{name.upper()}" for name in GatewaySettings.model_fields}
    known |= {f"FLOODGATE_WEB__{name.upper()}" for name in WebSettings.model_fields}
    known |= {"RABBITMQ_ERLANG_COOKIE"}
    known |= {"GF_SECURITY_ADMIN_PASSWORD__FILE", "GF_ANALYTICS_REPORTING_ENABLED", "GF_ANALYTICS_CHECK_FOR_UPDATES"}
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


def test_the_nodes_of_a_cluster_join_the_first_and_are_there_before_the_queues() -> None:
    found = services()
    joining = ("rabbitmq-2", "rabbitmq-3")
    conf = read_conf((ROOT / "rabbitmq" / "cluster.conf").read_text())
    listed = [conf[f"cluster_formation.classic_config.nodes.{number}"] for number in (1, 2, 3)]
    assert listed == [f"rabbit@{found[name]['hostname']}" for name in ("rabbitmq", *joining)]
    for name in joining:
        assert found[name]["volumes"][:4] == found["rabbitmq"]["volumes"][:4]
        assert "./rabbitmq/cluster.conf:/etc/rabbitmq/conf.d/30-cluster.conf:ro" in found[name]["volumes"]
        assert found[name]["environment"] == found["rabbitmq"]["environment"], "they share a cookie"
        assert found["operator"]["depends_on"][name] == {"condition": "service_healthy", "required": False}
    assert not any("cluster.conf" in volume for volume in found["rabbitmq"]["volumes"])


def test_clients_know_all_nodes_of_a_cluster() -> None:
    for service in services().values():
        if url := service.get("environment", {}).get("FLOODGATE_RABBITMQ_URL"):
            first, _, others = url.partition("${RABBITMQ_COOKIE:+")
            assert first.endswith("@rabbitmq:5672/")
            assert [other.partition("@")[2] for other in others.split(",")[1:]] == [
                "rabbitmq-2:5672/",
                "rabbitmq-3:5672/}",
            ]


def test_every_mounted_path_exists() -> None:
    volumes = [volume for service in services().values() for volume in service.get("volumes", ())]
    paths = [volume.partition(":")[0] for volume in volumes if volume.startswith("./")]
    assert len(paths) == 17
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_named_volumes_are_declared_and_used() -> None:
    mounted = {volume.partition(":")[0] for service in services().values() for volume in service.get("volumes", ())}
    declared = set(load(ROOT / "docker-compose.yml")["volumes"])
    assert declared == {name for name in mounted if not name.startswith(".")}


def test_prometheus_reads_its_configuration_and_asks_services_that_exist() -> None:
    service = services()["prometheus"]
    assert "--config.file=/etc/prometheus/compose.yml" in service["command"]
    assert "./deploy/prometheus:/etc/prometheus:ro" in service["volumes"]
    folder = ROOT / "deploy" / "prometheus"
    read = load(folder / "compose.yml")
    assert [name for name in read["rule_files"] if not (folder / name).is_file()] == []
    jobs = {job["job_name"]: job for job in read["scrape_configs"]}
    assert set(jobs) == {"floodgate", "floodgate-processes", "rabbitmq"}
    host, port = jobs["floodgate"]["static_configs"][0]["targets"][0].split(":")
    assert services()[host]["command"] == ["metrics", "--listen", f"0.0.0.0:{port}"]
    (found,) = jobs["floodgate-processes"]["dns_sd_configs"]
    for name in found["names"]:
        assert services()[name]["environment"]["FLOODGATE_METRICS_ADDRESS"] == f"0.0.0.0:{found['port']}"
    assert "rabbitmq_prometheus" in (ROOT / "rabbitmq" / "enabled_plugins").read_text()


def test_grafana_finds_prometheus_and_the_dashboards() -> None:
    provisioning = ROOT / "deploy" / "grafana" / "provisioning"
    (source,) = load(provisioning / "datasources" / "floodgate.yml")["datasources"]
    (provider,) = load(provisioning / "dashboards" / "floodgate.yml")["providers"]
    volumes = services()["grafana"]["volumes"]
    assert source["url"] == "http://prometheus:9090"
    assert "./deploy/grafana/provisioning:/etc/grafana/provisioning:ro" in volumes
    assert f"./deploy/grafana/dashboards:{provider['options']['path']}:ro" in volumes
    assert list((ROOT / "deploy" / "grafana" / "dashboards").glob("*.json"))


def test_the_pages_listen_at_their_published_port_and_are_asked_for_their_health() -> None:
    web = services()["web"]
    port = web["environment"]["FLOODGATE_WEB__ADDRESS"].rpartition(":")[2]
    assert web["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert f"http://127.0.0.1:{port}/health" in web["healthcheck"]["test"][-1]
    assert web["volumes"] == services()["worker"]["volumes"]


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
