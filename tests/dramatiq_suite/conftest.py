"""Fixtures with the names used by Dramatiq's tests, on Floodgate's broker and a real RabbitMQ.

rabbitmq_broker, stub_broker            a FloodgateBroker with its default middleware, and Dramatiq's global one
rabbitmq_worker, stub_worker            a stock dramatiq.Worker on it
result_backend, rate_limiter_backend    Dramatiq's, each in memory and on a real Redis
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dramatiq
import dramatiq.broker
import pytest
import redis
from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import Middleware
from dramatiq.rate_limits import RateLimiterBackend
from dramatiq.rate_limits import backends as rate_limiter_backends
from dramatiq.results import ResultBackend
from dramatiq.results import backends as result_backends

from floodgate.broker.amqp import delay_ladder, queue_admin
from floodgate.broker.messages import queue_names
from floodgate.broker.settings.model import Settings
from floodgate.broker.worker.dramatiq_broker import FloodgateBroker
from tests.dramatiq_suite.common import worker
from tests.services import Vhost, Vhosts

TOKEN = "123456:" + "A" * 35
IDLE_MILLISECONDS, STOCK_IDLE_MILLISECONDS = 20, 100
PROMPT_SUCCESSES = 10


class PromptJoin(FloodgateBroker):
    """Checks more often whether a queue is empty."""

    def join(
        self,
        queue_name: str,
        min_successes: int = 10,
        idle_time: int | None = None,
        *,
        timeout: int | None = None,
    ) -> None:
        patient = timeout or min_successes > PROMPT_SUCCESSES  # such a test waits for what a worker is processing
        unhurried = STOCK_IDLE_MILLISECONDS if patient else IDLE_MILLISECONDS
        super().join(queue_name, min_successes, idle_time or unhurried, timeout=timeout)


class Account(Middleware):
    """Counts enqueued and unsettled messages by queue, and keeps the failed ones."""

    def __init__(self) -> None:
        self.unsettled: Counter[str] = Counter()  # guarded by `changed`, like the others
        self.dead: list[MessageProxy] = []
        self.causes: list[
            tuple[type[BaseException], tuple[Any, ...]]
        ] = []  # not the exceptions: a test looks for leaks
        self.changed = threading.Condition()

    def after_enqueue(self, broker: Broker, message: dramatiq.Message[Any], delay: int | None) -> None:
        self._count(message.queue_name, 1)

    def after_ack(self, broker: Broker, message: MessageProxy) -> None:
        self._count(message.queue_name, -1)

    def before_nack(self, broker: Broker, message: MessageProxy) -> None:
        cause = message._exception or Exception("a message failed")
        with self.changed:
            self.dead.append(message)
            self.causes.append((type(cause), cause.args))

    def after_nack(self, broker: Broker, message: MessageProxy) -> None:
        self._count(message.queue_name, -1)

    def _count(self, queue_name: str, change: int) -> None:
        with self.changed:
            self.unsettled[queue_name] += change
            self.changed.notify_all()


class StubLike(FloodgateBroker):
    """Adds what tests use of the stub broker: ``join`` waits for messages in hand and raises their exceptions."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._account = Account()
        self.add_middleware(self._account)

    @property
    def dead_letters(self) -> list[MessageProxy]:
        return self._account.dead

    def join(self, queue_name: str, *, timeout: int = 60_000, fail_fast: bool = True) -> None:  # type: ignore[override]
        with self._account.changed:
            settled = self._account.changed.wait_for(lambda: not self._account.unsettled[queue_name], timeout / 1000)
        if not settled:
            raise dramatiq.QueueJoinTimeout(queue_name)
        if fail_fast and self._account.causes:
            kind, args = self._account.causes[0]
            raise kind(*args)


@pytest.fixture(scope="session")
def shared_vhost(vhosts: Vhosts) -> Iterator[Vhost]:
    """One for all these tests: declaring the delay ladder again takes longer than most of them."""
    taken = vhosts.take()
    yield taken
    vhosts.give_back(taken)


@pytest.fixture
def settings(shared_vhost: Vhost, tmp_path: Path) -> Settings:
    return Settings(
        rabbitmq_url=shared_vhost.url,
        state_url=f"sqlite:///{tmp_path}/state.db",
        bots=json.dumps({"b": TOKEN}),
        partitions=1,
        _env_file=None,
    )


@pytest.fixture
def rabbitmq_broker(settings: Settings) -> Iterator[FloodgateBroker]:
    yield from _in_use(PromptJoin(settings))


@pytest.fixture
def stub_broker(settings: Settings) -> Iterator[FloodgateBroker]:
    yield from _in_use(StubLike(settings))


def _in_use(broker: FloodgateBroker) -> Iterator[FloodgateBroker]:
    before = dramatiq.broker.global_broker
    broker.emit_after("process_boot")
    dramatiq.set_broker(broker)
    yield broker
    dramatiq.broker.global_broker = before
    _leave_nothing(broker)
    broker.close()


def _leave_nothing(broker: FloodgateBroker) -> None:
    """Deletes queues, since a purge would leave messages in hand."""
    queues = [name for queue in broker.queues for name in (queue, queue_names.dead_queue_of(queue))]
    queue_admin.delete(broker.connections, queues)
    queue_admin.purge(broker.connections, map(delay_ladder.level_name, range(delay_ladder.LEVELS)))


@pytest.fixture
def rabbitmq_worker(rabbitmq_broker: FloodgateBroker) -> Iterator[dramatiq.Worker]:
    with worker(rabbitmq_broker, worker_timeout=100, worker_threads=32) as made:
        yield made


@pytest.fixture
def stub_worker(stub_broker: FloodgateBroker) -> Iterator[dramatiq.Worker]:
    with worker(stub_broker, worker_timeout=100, worker_threads=32) as made:
        yield made


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
