"""Parsing URLs into addresses, and showing them without secrets."""

import pytest

from floodgate.broker.amqp.addresses import Address, parameters, parse_address
from floodgate.broker.errors import SettingsError


def test_special_characters_are_percent_encoded() -> None:
    address = parse_address("amqp://us%40er:p%3A%2F%23%25@host:5673/a%2Fb%20c")
    assert address == Address("host", 5673, "a/b c", "us@er", "p:/#%")


@pytest.mark.parametrize("url", ["amqp://host", "amqp://host/", "amqp://host/%2F"])
def test_an_absent_vhost_is_the_root_vhost(url: str) -> None:
    assert parse_address(url) == Address("host", 5672, "/", "guest", "guest")


def test_an_ipv6_address_is_an_address() -> None:
    address = parse_address("amqps://u:p@[::1]/")
    assert (address.host, address.port, str(address)) == ("::1", 5671, "[::1]:5671")


def test_neither_str_nor_repr_shows_the_password() -> None:
    address = parse_address("amqp://user:geheim@host/v")
    assert "geheim" not in f"{address} {address!r}"
    assert str(address) == "host:5672 vhost 'v'"


@pytest.mark.parametrize("url", ["amqp://host:port/", "http://host", "amqp://host/?x", "amqp://geheim@host:99999/"])
def test_a_malformed_url_is_refused_without_quoting_it(url: str) -> None:
    with pytest.raises(SettingsError, match="malformed") as caught:
        parse_address(url)
    assert "geheim" not in str(caught.value)


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(SettingsError, match="unknown option 'heartbeat'"):
        parse_address("amqp://host/?heartbeat=5")


def test_tls_verifies_the_server() -> None:
    options = parameters(parse_address("amqps://host/"), heartbeat_seconds=5, timeout_seconds=1, name="n").ssl_options
    assert options.context.check_hostname
    assert options.context.verify_mode.name == "CERT_REQUIRED"
    assert options.server_hostname == "host"


def test_a_missing_cafile_is_named() -> None:
    with pytest.raises(SettingsError, match="/no/such/ca"):
        parameters(parse_address("amqps://host/?cafile=/no/such/ca"), heartbeat_seconds=5, timeout_seconds=1, name="n")
