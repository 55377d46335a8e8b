"""Choosing a RabbitMQ from plain facts, parsing its greeting, and the configuration of our nodes."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from rabbitmq_node.amqp import CONNECTION_START, Greeting, parse_start
from rabbitmq_node.choice import Facts, Installed, NoWay, UseCompose, UseInstalled, UseTree, choose, fits, parse_version
from rabbitmq_node.conf import CONFIGURATION, environment, node_conf, read_conf
from rabbitmq_node.engine import PORTS, NodeSpec, Ports, free_ports

SCRIPTS = Path("/opt/rabbitmq/sbin")
NEW, OLD = Installed(SCRIPTS, "4.1.2"), Installed(SCRIPTS, "3.10.8")


def test_compose_is_preferred_to_an_installed_server() -> None:
    assert choose(Facts(compose=True, installed=NEW, root=True, debian=True), "4.3") == UseCompose("4.3")


def test_an_installed_4_is_used() -> None:
    assert choose(Facts(installed=NEW, root=True, debian=True)) == UseInstalled(SCRIPTS)


def test_an_installed_4_of_an_unwanted_version_is_ignored() -> None:
    assert choose(Facts(installed=NEW, root=True, debian=True), "4.3") == UseTree("4.3", "sid")
    assert choose(Facts(installed=NEW), "4.1") == UseInstalled(SCRIPTS)


def test_an_installed_3_is_ignored() -> None:
    assert choose(Facts(installed=OLD, root=True, debian=True)) == UseTree("4.0", "trixie")


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        (Facts(), "use Debian or Ubuntu as root"),
        (Facts(debian=True), "run this as root"),
        (Facts(root=True), "use Debian or Ubuntu as root"),
        (Facts(installed=OLD, debian=True), "found 3.10.8, which is not suitable"),
    ],
)
def test_if_no_server_is_available_one_sentence_names_the_remedies(facts: Facts, told: str) -> None:
    plan = choose(facts)
    assert isinstance(plan, NoWay)
    assert told in plan.sentence
    for way in ("FLOODGATE_RABBITMQ_URL", "Docker", "install it"):
        assert way in plan.sentence
    assert "\n" not in plan.sentence


@pytest.mark.parametrize(
    ("version", "release"),
    [("4.0.5", (4, 0)), ("4.1.0-rc.1", (4, 1)), ("3.10.8", (3, 10)), ("4.3-1", (4, 3)), ("", (0, 0)), ("x.y", (0, 0))],
)
def test_versions_are_compared_as_numbers(version: str, release: tuple[int, int]) -> None:
    assert parse_version(version) == release


def test_version_ten_is_newer_than_nine() -> None:
    assert fits("10.0.1", None)
    assert not fits("3.13.7", None)
    assert not fits("4.0.5", "4.3")


def table_entry(name: bytes, text: bytes) -> bytes:
    return bytes([len(name)]) + name + b"S" + struct.pack(">I", len(text)) + text


def test_the_product_and_version_are_read_from_the_greeting() -> None:
    table = table_entry(b"product", b"RabbitMQ") + table_entry(b"version", b"4.0.5")
    payload = CONNECTION_START + b"\x00\x09" + struct.pack(">I", len(table)) + table
    assert parse_start(payload) == Greeting("RabbitMQ", "4.0.5")


@pytest.mark.parametrize(
    "payload", [b"", b"HTTP/1.1 400", CONNECTION_START, CONNECTION_START + b"\x07productS\x00\x00"]
)
def test_an_invalid_greeting_is_refused(payload: bytes) -> None:
    with pytest.raises((ValueError, struct.error)):
        parse_start(payload)


def test_a_nodes_own_settings_override_the_conf() -> None:
    spec = NodeSpec(Path("/home"), Ports(1, 2, 3), conf={"heartbeat": "5"})
    conf = node_conf(spec, "/inside", {"heartbeat": "9", "log.console": "false"})
    assert conf["heartbeat"] == "5"
    assert conf["log.console"] == "false"
    assert conf["listeners.tcp.1"] == "127.0.0.1:1"
    assert conf["definitions.local.path"] == "/inside/definitions"


def test_every_line_of_our_conf_has_a_comment_with_its_reason() -> None:
    paragraphs = (CONFIGURATION / "rabbitmq.conf").read_text().strip().split("\n\n")
    settings = [paragraph for paragraph in paragraphs if read_conf(paragraph)]
    assert len(settings) > 5
    for paragraph in settings:
        assert paragraph.startswith("# "), paragraph


def test_a_node_does_not_read_another_servers_files() -> None:
    given = environment(NodeSpec(Path("/home"), Ports(1, 2, 3)), "/mine")
    files = [value for name, value in given.items() if name.endswith(("_FILE", "_FILES", "_BASE")) or name == "HOME"]
    assert len(files) == 8
    assert all(value.startswith("/mine") for value in files)


def test_free_ports_are_below_the_range_of_outgoing_connections() -> None:
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    ports = free_ports()
    assert len({ports.amqp, ports.distribution, ports.mapper}) == 3
    assert all(port in PORTS and port < low for port in (ports.amqp, ports.distribution, ports.mapper))
