"""One gateway with a worker, shared by all tests of this folder because it takes seconds to start.

gate             its address and the servers behind it; the fake Telegram is reset for each test
gate_on_a_store  the same, and a second one whose state is on Redis: for tests of what passes through the state store
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from floodgate.fake_telegram.server import running_fake
from tests.acceptance.gateway.programs import GatewayProcess
from tests.acceptance.stage import BOT, TOKEN, Stage
from tests.services import RedisServer, Vhosts

KEY = "100200300:a-gateway-key-for-tests"


@dataclass
class Gate:
    """A gateway and the servers behind it."""

    stage: Stage
    process: GatewayProcess

    @property
    def url(self) -> str:
        return self.process.url

    def call(
        self, method: str, secret: str = TOKEN, headers: dict[str, str] | None = None, **given: object
    ) -> httpx.Response:
        """Makes a call with JSON parameters."""
        return httpx.post(f"{self.url}/bot{secret}/{method}", json=given, headers=headers, timeout=60)


@pytest.fixture(scope="session")
def shared_gate(vhosts: Vhosts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    with running_gate(vhosts, tmp_path_factory.mktemp("gateway")) as gate:
        yield gate


@pytest.fixture(scope="session")
def shared_gate_on_redis(vhosts: Vhosts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    redis = RedisServer(tmp_path_factory.mktemp("redis")).start()
    try:
        with running_gate(vhosts, tmp_path_factory.mktemp("gateway"), FLOODGATE_STATE_URL=redis.url) as gate:
            yield gate
    finally:
        redis.kill()


@contextlib.contextmanager
def running_gate(vhosts: Vhosts, home: Path, **env: str) -> Iterator[Gate]:
    """A gateway and a worker, with other settings in the environment."""
    vhost = vhosts.take()
    with running_fake() as fake:
        extra = {
            "FLOODGATE_GATEWAY__PORT": "0",
            "FLOODGATE_GATEWAY__KEYS": json.dumps({BOT: [KEY]}),
            "FLOODGATE_GATEWAY__BODY_SECONDS": "2",
            # The fake judges arrivals to the millisecond, and a machine that runs tests can be 100 ms late.
            "FLOODGATE_LIMITS__BOT_PER_SECOND": "27",
            **env,
        }
        stage = Stage(vhost.url, fake.url, home, partitions=8, extra=extra)
        stage.vouch_idle()
        stage.worker()
        with GatewayProcess(stage.env, home) as process:
            yield Gate(stage, process)
        stage.close()
    vhosts.give_back(vhost)
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def gate(shared_gate: Gate) -> Iterator[Gate]:
    with renewed(shared_gate):
        yield shared_gate


@pytest.fixture(params=["sqlite", "redis"])
def gate_on_a_store(request: pytest.FixtureRequest) -> Iterator[Gate]:
    gate = request.getfixturevalue("shared_gate" if request.param == "sqlite" else "shared_gate_on_redis")
    with renewed(gate):
        yield gate


@contextlib.contextmanager
def renewed(gate: Gate) -> Iterator[None]:
    gate.stage.control.reset()
    yield
    gate.stage.control.limits(enabled=True)


@pytest.fixture
def spool(gate: Gate) -> Path:
    return gate.stage.home / "spool"
