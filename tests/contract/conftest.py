"""Each test of the admission contract runs on the model and on both stores, blocking and in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from floodgate.broker.admission.contract import Admission
from floodgate.broker.admission.policy import Policy, policy_of
from floodgate.broker.settings.model import Settings
from floodgate.broker.state.sqlite.admission import SqliteAdmission
from floodgate.broker.state.stores import open_store
from rabbitmq_node.engine import free_ports
from tests import awaited_admission
from tests.admission_bench import HandClock, settings_of
from tests.admission_model import PlainModel
from tests.services import RedisServer
from tests.waiting import until

Opener = Callable[[Policy], Admission]


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture(params=["model", "sqlite", "redis", "sqlite in batches", "redis in batches"])
def opener(request: pytest.FixtureRequest, tmp_path: Path, clock: HandClock) -> Iterator[Opener]:
    """Opens the store with a policy; opened twice, both share the same state (except for the model)."""
    opened: list[Admission] = []

    def make(policy: Policy) -> Admission:
        match request.param:
            case "model":
                store: Admission = PlainModel(policy, clock)
            case "sqlite":
                store = SqliteAdmission(tmp_path / "state.db", policy, clock)
            case "sqlite in batches":
                store = awaited_admission.on_sqlite(tmp_path / "state.db", policy, clock)
            case "redis in batches":
                store = awaited_admission.on_redis(request.getfixturevalue("redis_url"), policy, clock)
            case _:
                from floodgate.broker.state.redis.admission import RedisAdmission

                store = RedisAdmission(request.getfixturevalue("redis_url"), policy, clock)
        opened.append(store)
        return store

    yield make
    for store in opened:
        store.close()


@pytest.fixture
def admission(opener: Opener) -> Admission:
    """A store with Telegram's limits, whose bot `default` has been idle."""
    store = opener(policy_of(settings_of()))
    store.vouch_idle("default")
    return store


@pytest.fixture(params=["sqlite", "redis"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """Settings of a producer, with either store."""
    url = f"sqlite:///{tmp_path}/state.db" if request.param == "sqlite" else request.getfixturevalue("redis_url")
    return Settings(_env_file=None, state_url=url)


@pytest.fixture
def store(settings: Settings) -> Iterator[Admission]:
    """The workers' store of these settings, whose bot `default` has been idle."""
    store = open_store(settings)
    store.vouch_idle("default")
    yield store
    store.close()


@pytest.fixture
def cluster(new_redis: Callable[..., RedisServer]) -> RedisServer:
    """One node with all slots."""
    server = new_redis("--cluster-enabled", "yes", "--cluster-port", str(free_ports().amqp)).start()
    client = redis.Redis(port=server.port)
    client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
    until(lambda: client.execute_command("CLUSTER INFO")["cluster_state"] == "ok", 20)
    client.close()
    return server
