"""Fixtures under the names that Dramatiq's tests know, on Floodgate's broker and a real RabbitMQ.

rabbitmq_broker, stub_broker            one FloodgateBroker with its default middleware, and Dramatiq's global one
rabbitmq_worker, stub_worker            a stock dramatiq.Worker on it
result_backend, rate_limiter_backend    Dramatiq's, each in memory and on a real Redis
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dramatiq
import dramatiq.broker
import pytest
import redis
from dramatiq.rate_limits import RateLimiterBackend
from dramatiq.rate_limits import backends as rate_limiter_backends
from dramatiq.results import ResultBackend
from dramatiq.results import backends as result_backends

from broker import ladder, topology
from broker.dramatiq_broker import FloodgateBroker
from broker.settings import Settings
from tests.dramatiq_suite.common import worker
from tests.services import Vhost, Vhosts

TOKEN = "123456:" + "A" * 35
IDLE_MILLISECONDS = 20


class BrokerUnderTest(FloodgateBroker):
    """Looks more often whether a queue is empty, and takes the stub broker's argument: there a test learns of a dead
    letter from ``join``."""

    def join(
        self,
        queue_name: str,
        min_successes: int = 10,
        idle_time: int = IDLE_MILLISECONDS,
        *,
        timeout: int | None = None,
        fail_fast: bool = False,
    ) -> None:
        super().join(queue_name, min_successes, idle_time, timeout=timeout)


@pytest.fixture(scope="session")
def shared_vhost(vhosts: Vhosts) -> Iterator[Vhost]:
    """One for all these tests: declaring the delay ladder anew takes longer than most of them."""
    taken = vhosts.take()
    yield taken
    vhosts.give_back(taken)


@pytest.fixture
def rabbitmq_broker(shared_vhost: Vhost, tmp_path: Path) -> Iterator[FloodgateBroker]:
    settings = Settings(
        rabbitmq_url=shared_vhost.url,
        state_url=f"sqlite:///{tmp_path}/state.db",
        bots=json.dumps({"b": TOKEN}),
        partitions=1,
        _env_file=None,
    )
    broker, before = BrokerUnderTest(settings), dramatiq.broker.global_broker
    broker.emit_after("process_boot")
    dramatiq.set_broker(broker)
    yield broker
    dramatiq.broker.global_broker = before
    _leave_nothing(broker)
    broker.close()


def _leave_nothing(broker: FloodgateBroker) -> None:
    """Queues are deleted, since a purge would leave what is in hand."""
    queues = [name for queue in broker.queues for name in (queue, topology.dead_queue_of(queue))]
    topology.delete(broker.connections, queues)
    topology.purge(broker.connections, map(ladder.level_name, range(ladder.LEVELS)))


@pytest.fixture
def stub_broker(rabbitmq_broker: FloodgateBroker) -> FloodgateBroker:
    return rabbitmq_broker


@pytest.fixture
def rabbitmq_worker(rabbitmq_broker: FloodgateBroker) -> Iterator[dramatiq.Worker]:
    with worker(rabbitmq_broker, worker_timeout=100, worker_threads=32) as made:
        yield made


@pytest.fixture
def stub_worker(rabbitmq_worker: dramatiq.Worker) -> dramatiq.Worker:
    return rabbitmq_worker


@pytest.fixture(params=["stub", "redis"])
def result_backend(request: pytest.FixtureRequest) -> ResultBackend:
    return request.getfixturevalue(f"{request.param}_result_backend")


@pytest.fixture
def stub_result_backend() -> ResultBackend:
    return result_backends.StubBackend()


@pytest.fixture
def redis_result_backend(redis_url: str) -> ResultBackend:
    return result_backends.RedisBackend(client=redis.Redis.from_url(redis_url))


@pytest.fixture(params=["stub", "redis"])
def rate_limiter_backend(request: pytest.FixtureRequest) -> RateLimiterBackend:
    return request.getfixturevalue(f"{request.param}_rate_limiter_backend")


@pytest.fixture
def stub_rate_limiter_backend() -> RateLimiterBackend:
    return rate_limiter_backends.StubBackend()


@pytest.fixture
def redis_rate_limiter_backend(redis_url: str) -> RateLimiterBackend:
    return rate_limiter_backends.RedisBackend(client=redis.Redis.from_url(redis_url))


@pytest.fixture
def info_logging(caplog: pytest.LogCaptureFixture) -> Iterator[Any]:
    with caplog.at_level("INFO"):
        yield
