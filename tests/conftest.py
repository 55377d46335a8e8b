"""Shared by all test folders: options, and the servers of `tests.services`, started on first use.

rabbitmq       one node for the whole session; leave it running and healthy
vhost          a vhost of that node for this test only: vhost.url, vhost.ctl("list_queues", …)
new_node       makes nodes for this test only, to kill and to fill: new_node(conf={"heartbeat": "5"}).start()
cluster        three nodes for the whole session, to kill, freeze and cut off; healed after each test
redis_server   one Redis for the whole session; leave it running
redis_url      its URL, emptied for this test
new_redis      makes Redis servers for this test only
redis_cluster  one Redis Cluster of three shards for the whole session; leave it running
cluster_url    its URL, emptied for this test
postgres       one PostgreSQL for the whole session: postgres.new_database() makes a database for this test only
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from rabbitmq_node.choice import VERSIONS
from rabbitmq_node.cluster import Cluster
from rabbitmq_node.node import Node
from tests.redis_servers import ShardedRedis
from tests.services import PostgresServer, RedisServer, Vhost, Vhosts


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("floodgate")
    group.addoption("--rabbitmq", choices=VERSIONS, help="the RabbitMQ to test with; without it, any from 4.0 on")
    group.addoption("--chaos", action="store_true", help="run the chaos and comparison tests at full length")
    group.addoption("--clients", action="store_true", help="run all programs of others, not only a few")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselects tests by their marks; pytest's last line counts them.

    `full_length`: takes minutes, runs with --chaos only. `clients`: runs with --clients only. `checkout`: examines the
    product's source files, which the tree that `./scripts/test --wheel` makes does not have.
    """
    marks = [] if config.getoption("--chaos") else ["full_length"]
    marks += [] if config.getoption("--clients") else ["clients"]
    if not (config.rootpath / "broker").is_dir():
        marks.append("checkout")
    left_out = [item for item in items if any(map(item.get_closest_marker, marks))]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session")
def rabbitmq_version(pytestconfig: pytest.Config) -> str | None:
    """The version requested by --rabbitmq."""
    return pytestconfig.getoption("--rabbitmq")


@pytest.fixture(scope="session")
def rabbitmq(rabbitmq_version: str | None) -> Iterator[Node]:
    with Node(rabbitmq_version) as node:
        yield node


@pytest.fixture(scope="session")
def vhosts(rabbitmq: Node) -> Vhosts:
    return Vhosts(rabbitmq)


@pytest.fixture
def vhost(vhosts: Vhosts) -> Iterator[Vhost]:
    taken = vhosts.take()
    yield taken
    vhosts.give_back(taken)


@pytest.fixture
def new_node(rabbitmq_version: str | None) -> Iterator[Callable[..., Node]]:
    """`Node` with the version filled in; all nodes are removed after the test."""
    nodes: list[Node] = []

    def make(**options: Any) -> Node:
        nodes.append(Node(**{"version": rabbitmq_version, **options}))
        return nodes[-1]

    yield make
    for node in nodes:
        node.remove()


@pytest.fixture(scope="session")
def running_cluster(rabbitmq_version: str | None) -> Iterator[Cluster]:
    with Cluster(rabbitmq_version, plugins=("rabbitmq_management",)) as cluster:
        yield cluster


@pytest.fixture
def cluster(running_cluster: Cluster) -> Iterator[Cluster]:
    yield running_cluster
    running_cluster.heal()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis")).start()
    yield server
    server.stop()


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    redis_server.flush()
    return redis_server.url


@pytest.fixture
def new_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., RedisServer]]:
    """Servers that are not yet started, with flags for redis-server; all are stopped after the test."""
    servers: list[RedisServer] = []

    def make(*flags: str) -> RedisServer:
        servers.append(RedisServer(tmp_path_factory.mktemp("redis"), *flags))
        return servers[-1]

    yield make
    for server in servers:
        server.kill()


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ShardedRedis]:
    cluster = ShardedRedis(tmp_path_factory.mktemp("redis-cluster"))
    try:
        yield cluster.start()
    finally:
        cluster.stop()


@pytest.fixture
def cluster_url(redis_cluster: ShardedRedis) -> str:
    redis_cluster.flush()
    return redis_cluster.url


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One PostgreSQL for the whole session; leave it up."""
    server = PostgresServer()
    try:
        yield server.start()
    finally:
        server.remove()
