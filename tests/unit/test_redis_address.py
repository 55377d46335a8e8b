"""Redis URLs: the forms that others use, and one sentence for each mistake."""

from __future__ import annotations

import pytest

from floodgate.broker.errors import SettingsError
from floodgate.broker.settings.model import Settings, load_settings
from floodgate.broker.settings.redis_address import Deployment, RedisAddress
from floodgate.broker.state.stores import open_store


@pytest.mark.parametrize(
    ("url", "nodes", "server_url"),
    [
        ("redis://", (("localhost", 6379),), "redis://localhost:6379/0"),
        ("redis://:p%40ss@one:7000/3", (("one", 7000),), "redis://:p%40ss@one:7000/3"),
        ("rediss://one?ssl_ca_certs=/a%20b&db=2", (("one", 6379),), "rediss://one:6379/2?ssl_ca_certs=%2Fa+b"),
        ("redis://[::1]:7000", (("::1", 7000),), "redis://[::1]:7000/0"),
        (
            "redis+sentinel://user:secret@one,two:7,[::1]:8/main/4?sentinel_password=other&socket_timeout=3",
            (("one", 26379), ("two", 7), ("::1", 8)),
            "redis://user:secret@one:26379/4?socket_timeout=3",
        ),
        ("rediss+sentinel://one/main", (("one", 26379),), "rediss://one:26379/0"),
        ("redis+cluster://:secret@one,two:7/0", (("one", 6379), ("two", 7)), "redis://:secret@one:6379/0"),
        ("rediss+cluster://one/", (("one", 6379),), "rediss://one:6379/0"),
        ("unix:///run/redis.sock?db=5", (), "unix:///run/redis.sock?db=5"),
    ],
)
def test_a_url_names_its_nodes_and_the_server_for_the_client(
    url: str, nodes: tuple[tuple[str, int], ...], server_url: str
) -> None:
    address = RedisAddress.parse(url)
    assert (address.nodes, address.server_url) == (nodes, server_url)


def test_a_sentinel_url_has_a_name_a_database_and_a_password_for_the_sentinels() -> None:
    address = RedisAddress.parse("redis+sentinel://one/main/4?sentinel_username=ops&sentinel_password=s%26ecret")
    assert (address.deployment, address.primary, address.database) == (Deployment.SENTINEL, "main", 4)
    assert address.sentinel_options == {"username": "ops", "password": "s&ecret"}


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("redis://u:secret@one:7/1", "one:7"),
        (
            "redis+sentinel://u:secret@one,two/main?sentinel_password=secret",
            "'main' of the Sentinels one:26379, two:26379",
        ),
        ("redis+cluster://u:secret@one,two", "one:6379, two:6379 (a cluster)"),
        ("unix://u:secret@/run/redis.sock", "/run/redis.sock"),
    ],
)
def test_the_text_of_an_address_has_no_password(url: str, text: str) -> None:
    address = RedisAddress.parse(url)
    assert str(address) == text
    assert "secret" not in repr(address)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        (
            "redis://u:secret@one,two",
            r"names 2 servers: write redis\+cluster://.* for a Redis Cluster, or redis\+sentinel",
        ),
        ("redis://secret@one:port", "port that is not a number"),
        ("redis://secret@one:70000", "port that is not a number"),
        ("redis://secret@one/main", "not the number of a database"),
        ("redis+sentinel://secret@one", "does not name the primary"),
        ("redis+sentinel://secret@one/main/two", "not the number of a database"),
        ("redis+sentinel://secret@one,,two/main", "empty host"),
        ("redis+cluster://secret@one/2", "only database 0"),
        ("redis://secret@one?sentinel_password=x", r"without Sentinels: write redis\+sentinel"),
        ("http://secret@one", "must start with sqlite:///, redis://"),
    ],
)
def test_a_malformed_url_is_refused_in_one_sentence_without_its_password(url: str, why: str) -> None:
    with pytest.raises(SettingsError, match=f"FLOODGATE_STATE_URL .*{why}") as caught:
        load_settings(_env_file=None, state_url=url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("redis://one?colour=blue", "the option 'colour', which redis-py does not know"),
        ("redis://one?socket_timeout=blue", "Invalid value for 'socket_timeout'"),
    ],
)
def test_an_unknown_option_is_refused_when_the_store_is_opened(url: str, why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        open_store(Settings(_env_file=None, state_url=url))  # type: ignore[call-arg, arg-type]
