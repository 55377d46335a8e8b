"""The content of Dramatiq's tests/middleware, rewritten: its source archive omits that folder. On our broker."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
import weakref
from itertools import pairwise

import dramatiq
import pytest
from dramatiq.middleware import CurrentMessage, Middleware, Shutdown, TimeLimitExceeded

from tests.dramatiq_suite.common import worker
from tests.dramatiq_suite.conftest import StubLike


def _loop_until(stop: threading.Event) -> None:
    """Runs Python code that an exception from another thread can interrupt."""
    while not stop.is_set():
        stop.wait(0.01)


# Time limits and shutdown


@pytest.mark.parametrize("on_the_message", [False, True])
def test_an_actor_that_runs_too_long_is_interrupted(
    stub_broker: StubLike, stub_worker: dramatiq.Worker, on_the_message: bool
) -> None:
    interrupted, stop = [], threading.Event()
    limit = {"time_limit": 10}

    @dramatiq.actor(max_retries=0, **({} if on_the_message else limit))
    def work() -> None:
        try:
            _loop_until(stop)
        except TimeLimitExceeded:
            interrupted.append(True)
            raise

    work.send_with_options(**(limit if on_the_message else {}))
    with pytest.raises(TimeLimitExceeded):
        stub_broker.join(work.queue_name)
    assert interrupted == [True]


def test_an_async_actor_that_runs_too_long_is_cancelled(stub_broker: StubLike, stub_worker: dramatiq.Worker) -> None:
    cancelled = threading.Event()

    @dramatiq.actor(max_retries=0, time_limit=10)
    async def work() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            cancelled.set()

    work.send()
    with pytest.raises(TimeLimitExceeded):
        stub_broker.join(work.queue_name)
    assert cancelled.is_set()


@pytest.mark.parametrize("notify", [True, False])
def test_an_actor_is_notified_of_a_shutdown_on_request(stub_broker: StubLike, notify: bool) -> None:
    begun, stop = threading.Event(), threading.Event()
    ended = []

    @dramatiq.actor(max_retries=0, notify_shutdown=notify)
    def work() -> None:
        begun.set()
        try:
            _loop_until(stop)
        except Shutdown:
            ended.append("shutdown")
            raise
        ended.append("done")

    work.send()
    with worker(stub_broker, worker_timeout=100, worker_threads=1):
        assert begun.wait(10)
        if not notify:
            threading.Timer(0.3, stop.set).start()  # the worker waits for it meanwhile
    stop.set()
    assert ended == ["shutdown" if notify else "done"]


def test_a_message_interrupted_by_a_shutdown_is_retried(stub_broker: StubLike) -> None:
    begun, stop = threading.Semaphore(0), threading.Event()
    runs = []

    @dramatiq.actor(min_backoff=50, max_backoff=50, notify_shutdown=True)
    def work() -> None:
        runs.append(True)
        begun.release()
        _loop_until(stop)

    work.send()
    for _ in range(2):
        with worker(stub_broker, worker_timeout=100, worker_threads=1):
            assert begun.acquire(timeout=10)
    stop.set()
    with worker(stub_broker, worker_timeout=100, worker_threads=1):
        stub_broker.join(work.queue_name)
    assert len(runs) == 3


# Retries


def test_a_failed_message_is_retried_up_to_its_limit(stub_broker: StubLike, stub_worker: dramatiq.Worker) -> None:
    runs = []

    @dramatiq.actor(max_retries=3, min_backoff=1, max_backoff=1)
    def fails() -> None:
        runs.append(True)
        raise RuntimeError("failed")

    fails.send()
    with pytest.raises(RuntimeError, match="failed"):
        stub_broker.join(fails.queue_name)
    assert len(runs) == 4


@pytest.mark.parametrize("most", [0, 2])
def test_a_message_can_set_its_number_of_retries(
    stub_broker: StubLike, stub_worker: dramatiq.Worker, most: int
) -> None:
    runs = []

    @dramatiq.actor(max_retries=9, min_backoff=1, max_backoff=1)
    def fails() -> None:
        runs.append(True)
        raise RuntimeError

    fails.send_with_options(max_retries=most)
    stub_broker.join(fails.queue_name, fail_fast=False)
    assert len(runs) == most + 1


def test_a_retry_can_set_its_delay_and_is_not_logged_as_an_error(
    stub_broker: StubLike, stub_worker: dramatiq.Worker, caplog: pytest.LogCaptureFixture
) -> None:
    runs: list[float] = []

    @dramatiq.actor(max_retries=1)
    def again() -> None:
        runs.append(time.monotonic())
        if len(runs) == 1:
            raise dramatiq.Retry(delay=200)

    again.send()
    stub_broker.join(again.queue_name)
    assert 0.2 <= runs[1] - runs[0] < 2
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_predicate_decides_on_retries(stub_broker: StubLike, stub_worker: dramatiq.Worker) -> None:
    runs = []

    @dramatiq.actor(min_backoff=1, max_backoff=1, retry_when=lambda retries, error: isinstance(error, OSError))
    def fails() -> None:
        runs.append(True)
        raise OSError if len(runs) < 3 else RuntimeError

    fails.send()
    stub_broker.join(fails.queue_name, fail_fast=False)
    assert len(runs) == 3


@pytest.mark.parametrize("throws", [OSError, (RuntimeError, OSError)])
def test_an_expected_exception_is_not_retried(
    stub_broker: StubLike, stub_worker: dramatiq.Worker, throws: object
) -> None:
    runs = []

    @dramatiq.actor(throws=throws)
    def fails() -> None:
        runs.append(True)
        raise OSError

    fails.send()
    stub_broker.join(fails.queue_name, fail_fast=False)
    assert runs == [True]


def test_a_retried_message_has_the_time_of_its_requeue(stub_broker: StubLike, stub_worker: dramatiq.Worker) -> None:
    times = []

    @dramatiq.actor(max_retries=2, min_backoff=10, max_backoff=10)
    def fails() -> None:
        message = CurrentMessage.get_current_message()
        assert message is not None
        times.append(message.options.get("requeue_timestamp", message.message_timestamp))
        raise RuntimeError

    fails.send()
    stub_broker.join(fails.queue_name, fail_fast=False)
    assert len(times) == 3
    assert all(earlier < later for earlier, later in pairwise(times))


@pytest.mark.parametrize(("succeeds_at", "told"), [(1, 0), (2, 0), (9, 1)])
def test_an_actor_is_notified_only_of_exhausted_retries(
    stub_broker: StubLike, stub_worker: dramatiq.Worker, succeeds_at: int, told: int
) -> None:
    runs, heard = [], []

    @dramatiq.actor
    def hear(message: dict[str, object], retries: dict[str, int]) -> None:
        heard.append(retries["max_retries"])

    @dramatiq.actor(max_retries=2, on_retry_exhausted=hear.actor_name)
    def work() -> None:
        runs.append(True)
        if len(runs) < succeeds_at:
            raise dramatiq.Retry(delay=1)

    work.send()
    stub_broker.join(work.queue_name, fail_fast=False)
    assert heard == [2] * told
    assert len(runs) == min(succeeds_at, 3)


# Async actors


def test_the_exception_of_an_async_actor_does_not_leak(stub_broker: StubLike, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)  # a captured record keeps its exception alive
    raised: list[weakref.ref[BaseException]] = []

    class CustomError(Exception):
        def __init__(self, *args: object) -> None:
            super().__init__(*args)
            raised.append(weakref.ref(self))

    @dramatiq.actor(max_retries=1, max_backoff=1)
    async def fails() -> None:
        raise CustomError

    gc.disable()
    try:
        with worker(stub_broker, worker_timeout=10, worker_threads=1):
            fails.send()
            stub_broker.join(fails.queue_name, fail_fast=False)
        assert [each() for each in raised] == [None, None]
    finally:
        gc.enable()


# Third-party middleware


class Metrics(Middleware):
    """Counts as Dramatiq's Prometheus middleware does: in progress, done, failed, rejected and retried messages."""

    def __init__(self) -> None:
        self.delayed: set[str] = set()
        self.in_progress = 0
        self.counts = dict.fromkeys(("processed", "failed", "rejected", "retried", "skipped"), 0)
        self.milliseconds: list[float] = []
        self._started: dict[str, float] = {}
        self._lock = threading.Lock()

    @property
    def actor_options(self) -> set[str]:
        return {"label"}

    def after_nack(self, broker: dramatiq.Broker, message: dramatiq.MessageProxy) -> None:
        self._count("rejected")

    def after_enqueue(self, broker: dramatiq.Broker, message: dramatiq.Message[object], delay: int | None) -> None:
        if "retries" in message.options:
            self._count("retried")

    def before_process_message(self, broker: dramatiq.Broker, message: dramatiq.MessageProxy) -> None:
        with self._lock:
            self.in_progress += 1
            self._started[message.message_id] = time.monotonic()

    def after_process_message(
        self,
        broker: dramatiq.Broker,
        message: dramatiq.MessageProxy,
        *,
        result: object = None,
        exception: BaseException | None = None,
    ) -> None:
        with self._lock:
            self.in_progress -= 1
            self.milliseconds.append(1000 * (time.monotonic() - self._started.pop(message.message_id)))
        self._count("processed")
        if exception is not None:
            self._count("failed")

    def after_skip_message(self, broker: dramatiq.Broker, message: dramatiq.MessageProxy) -> None:
        with self._lock:
            self.in_progress -= 1
        self._count("skipped")

    def _count(self, what: str) -> None:
        with self._lock:
            self.counts[what] += 1


def test_metrics_count_the_outcome_of_each_message(stub_broker: StubLike, stub_worker: dramatiq.Worker) -> None:
    metrics = Metrics()
    stub_broker.add_middleware(metrics, before=dramatiq.middleware.AgeLimit)

    @dramatiq.actor(label="a", max_retries=1, min_backoff=1, max_backoff=1)
    def work(word: str) -> None:
        if word == "fail":
            raise RuntimeError

    for word in ("do", "do", "fail"):
        work.send(word)
    work.send_with_options(args=("old",), max_age=1, delay=100)
    stub_broker.join(work.queue_name, fail_fast=False)
    assert metrics.counts == {"processed": 4, "failed": 2, "rejected": 2, "retried": 1, "skipped": 1}
    assert metrics.in_progress == 0
    assert len(metrics.milliseconds) == 4
