"""Each test of the admission contract runs on the model and on both stores, blocking and in batches."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from floodgate.broker.admission.contract import Admission
from floodgate.broker.admission.policy import Policy, policy_of
from floodgate.broker.settings.model import Settings
from floodgate.broker.state.redis.admission import RedisAdmission
from floodgate.broker.state.sqlite.admission import SqliteAdmission
from floodgate.broker.state.stores import open_store
from tests import awaited_admission
from tests.admission_bench import HandClock, settings_of
from tests.admission_model import PlainModel

Opener = Callable[[Policy], Admission]


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


ON_CLUSTER = ("redis cluster", "redis cluster in batches")
# The cluster runs the same script as a single server. A run of everything has a share of the tests on it, since all of
# them take minutes; with --chaos, all run.
CLUSTER_SHARE = 20


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    on_cluster = [each for each in items if any(f"[{name}" in each.name for name in ON_CLUSTER)]
    for place, item in enumerate(on_cluster):
        if place % CLUSTER_SHARE:
            item.add_marker(pytest.mark.full_length)


@pytest.fixture(params=["model", "sqlite", "redis", "sqlite in batches", "redis in batches", *ON_CLUSTER])
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
            case "redis in batches" | "redis cluster in batches":
                store = awaited_admission.on_redis(redis_url_of(request), policy, clock)
            case _:
                store = RedisAdmission(redis_url_of(request), policy, clock)
        opened.append(store)
        return store

    yield make
    for store in opened:
        store.close()


def redis_url_of(request: pytest.FixtureRequest) -> str:
    """The URL of the server or cluster that the test's parameter names."""
    cluster = str(request.param).startswith("redis cluster")
    return str(request.getfixturevalue("cluster_url" if cluster else "redis_url"))


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
def certificate(tmp_path: Path) -> Path:
    """Self-signed, for 127.0.0.1 only; the key is in the same folder."""
    made = tmp_path / "cert.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=redis -addext subjectAltName=IP:127.0.0.1"
    files = ["-keyout", str(tmp_path / "key.pem"), "-out", str(made)]
    subprocess.run([*command.split(), *files], check=True, capture_output=True, timeout=30)
    return made
