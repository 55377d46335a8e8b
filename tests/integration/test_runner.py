"""Async actors on a real RabbitMQ, run by the runner: Dramatiq's signals, its middleware, and stopping."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import dramatiq
import pytest
from dramatiq.broker import Broker
from dramatiq.brokers.stub import StubBroker
from dramatiq.middleware import (
    AsyncIO,
    Callbacks,
    CurrentMessage,
    Middleware,
    MiddlewareError,
    Pipelines,
    Retries,
    SkipMessage,
)
from dramatiq.results import Results
from dramatiq.results.backends import StubBackend

from floodgate.broker.amqp import queue_admin, topology
from floodgate.broker.messages.dead_letters import read_dead_letter
from floodgate.broker.messages.publication import Publication
from floodgate.broker.settings.model import Settings
from floodgate.broker.worker.dramatiq_broker import FloodgateBroker
from floodgate.broker.worker.middleware.awaited import AwaitedMiddleware
from floodgate.broker.worker.middleware.retries import ConfirmedRetries
from floodgate.broker.worker.runner import Runner
from tests.draining import drain
from tests.services import Vhost

QUEUE = "mail"
TOKEN = "123456:" + "A" * 35
SOON_SECONDS = 15.0

T = TypeVar("T")
Make = Callable[..., FloodgateBroker]


@pytest.fixture
def make(vhost: Vhost, tmp_path: Path) -> Make:
    """Makes a broker with this middleware in addition to what actors need; ``only``: with nothing else."""

    def made(*middleware: Middleware, only: bool = False) -> FloodgateBroker:
        settings = Settings(
            rabbitmq_url=vhost.url,
            state_url=f"sqlite:///{tmp_path}/state.db",
            bots=json.dumps({"b": TOKEN}),
            partitions=1,
            _env_file=None,
        )
        needed: list[Middleware] = [] if only else [AsyncIO(), CurrentMessage(), ConfirmedRetries()]
        broker = FloodgateBroker(settings, middleware=[*needed, *middleware])
        broker.run_on_callers_loop()
        return broker

    return made


@asynccontextmanager
async def running(broker: FloodgateBroker, *, prefetch: int = 1, stop_seconds: float = 5) -> AsyncIterator[Runner]:
    """A runner of the broker's queues."""
    queues = broker.get_declared_queues()
    await queue_admin.adeclare(broker.connections, topology.pipeline([], 0, work_queues=queues))
    runner = Runner(broker, queues, prefetch=lambda _: prefetch)
    await runner.start()
    try:
        yield runner
    finally:
        await runner.stop(stop_seconds)
        await broker.aclose()


async def off_the_loop(function: Callable[..., T], *arguments: Any, **options: Any) -> T:
    """Enqueueing blocks until RabbitMQ has the message."""
    return await asyncio.to_thread(function, *arguments, **options)


async def soon(probe: Callable[[], T]) -> T:
    async with asyncio.timeout(SOON_SECONDS):
        while not (answer := probe()):  # noqa: ASYNC110  # what is awaited happens on a server
            await asyncio.sleep(0.02)
        return answer


def play(scene: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await scene()

    asyncio.run(bounded())


# Signals.

HOOKS = (
    *("before_process_message", "after_process_message", "after_skip_message"),
    *("before_ack", "after_ack", "before_nack", "after_nack"),
    *("before_worker_boot", "after_worker_boot", "before_worker_shutdown", "after_worker_shutdown"),
)
Event = tuple[str, str, str]  # name, hook, exception if any


class Recorder(Middleware):
    """Records every signal. ``on`` runs at one of them."""

    def __init__(self, name: str, events: list[Event], on: dict[str, Callable[[Any], None]] | None = None) -> None:
        self._name = name
        self._events = events
        self._on = on or {}

    def note(self, hook: str, subject: Any, exception: BaseException | None = None) -> None:
        self._events.append((self._name, hook, type(exception).__name__ if exception else ""))
        if hook in self._on:
            self._on[hook](subject)


def _recording(hook: str) -> Callable[..., None]:
    def note(self: Recorder, _broker: Broker, subject: Any, **options: Any) -> None:
        self.note(hook, subject, options.get("exception"))

    return note


for _hook in HOOKS:
    setattr(Recorder, _hook, _recording(_hook))


class OtherError(Exception):
    pass


class DeferredError(MiddlewareError):
    pass


def skip(_message: Any) -> None:
    raise SkipMessage("not now")


def fail_and_skip(message: Any) -> None:
    message.fail()
    raise SkipMessage("never")


def mark_failed(message: Any) -> None:
    message.fail()


def defer(_message: Any) -> None:
    raise DeferredError("not now")


def break_down(_message: Any) -> None:
    raise OtherError("a bug of a middleware")


SCENARIOS: dict[str, tuple[str, dict[str, Callable[[Any], None]]]] = {
    "success": ("fine", {}),
    "failure without retries": ("failing", {}),
    "failure that is expected": ("expected", {}),
    "skipped": ("fine", {"before_process_message": skip}),
    "failed and skipped": ("fine", {"before_process_message": fail_and_skip}),
    "failed before it began": ("fine", {"before_process_message": mark_failed}),
    "a middleware error before": ("fine", {"before_process_message": defer}),
    "a middleware that breaks before": ("fine", {"before_process_message": break_down}),
    "a middleware that breaks after": ("fine", {"after_process_message": break_down}),
    "unknown actor": ("nobody", {}),
}


def declare_actors(broker: Broker) -> None:
    @dramatiq.actor(queue_name=QUEUE, broker=broker)
    async def fine() -> None: ...

    @dramatiq.actor(queue_name=QUEUE, broker=broker, max_retries=0)
    async def failing() -> None:
        raise OtherError("as it does")

    @dramatiq.actor(queue_name=QUEUE, broker=broker, throws=OtherError)
    async def expected() -> None:
        raise OtherError("as it may")


def message_for(actor_name: str) -> dramatiq.Message[Any]:
    return dramatiq.Message(queue_name=QUEUE, actor_name=actor_name, args=(), kwargs={}, options={"max_retries": 0})


def under_dramatiq(actor_name: str, on: dict[str, Callable[[Any], None]]) -> list[Event]:
    """The signals of Dramatiq's own worker, on its stub broker."""
    events: list[Event] = []
    recorders = [Recorder("first", events, on), Recorder("second", events)]
    broker = StubBroker(middleware=[AsyncIO(), CurrentMessage(), Retries(), *recorders])
    declare_actors(broker)
    broker.enqueue(message_for(actor_name))
    worker = dramatiq.Worker(broker, worker_timeout=50, worker_threads=1)
    worker.start()
    broker.join(QUEUE, timeout=10_000, fail_fast=False)
    worker.stop()
    broker.close()
    return events


def under_ours(make: Make, actor_name: str, on: dict[str, Callable[[Any], None]]) -> list[Event]:
    events: list[Event] = []

    async def scene() -> None:
        broker = make(Recorder("first", events, on), Recorder("second", events))
        declare_actors(broker)
        async with running(broker):
            await off_the_loop(broker.enqueue, message_for(actor_name))
            await soon(lambda: [event for event in events if event[:2] in _LAST])

    play(scene)
    return events


_LAST = {("first", "after_ack"), ("first", "after_nack")}  # after-hooks run in reverse order


ROUND = len(("before_process_message", "before_nack", "before_nack", "after_nack", "after_nack"))
BOOT = len(("before_worker_boot", "after_worker_boot") * 2)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_signals_fire_as_in_dramatiqs_own_worker(make: Make, scenario: str) -> None:
    actor_name, on = SCENARIOS[scenario]
    ours, dramatiqs = under_ours(make, actor_name, on), under_dramatiq(actor_name, on)
    # Each kind by itself: a message may be processed before Dramatiq reports that its worker has booted.
    of_messages = [[event for event in events if "worker" not in event[1]] for events in (ours, dramatiqs)]
    of_workers = [[event for event in events if "worker" in event[1]] for events in (ours, dramatiqs)]
    if scenario == "a middleware error before":
        # Dramatiq acknowledges such a message, which loses it; here it is redelivered. One round is enough.
        of_messages = [events[:ROUND] for events in of_messages]
        of_workers = [events[:BOOT] for events in of_workers]
    assert of_messages[0] == of_messages[1]
    assert of_workers[0] == of_workers[1]


def test_worker_signals_fire_once_even_if_stopped_twice(make: Make) -> None:
    events: list[Event] = []

    async def scene() -> None:
        broker = make(Recorder("only", events))
        declare_actors(broker)
        unstarted = Runner(broker, [QUEUE])
        await unstarted.stop(1)
        async with running(broker) as runner:
            await runner.stop(1)

    play(scene)
    hooks = [hook for _, hook, _ in events]
    assert hooks == ["before_worker_boot", "after_worker_boot", "before_worker_shutdown", "after_worker_shutdown"]


@pytest.mark.parametrize(("actor_name", "level"), [("failing", logging.ERROR), ("expected", logging.INFO)])
def test_an_exception_listed_in_throws_is_not_logged_as_an_error(
    make: Make, caplog: pytest.LogCaptureFixture, actor_name: str, level: int
) -> None:
    with caplog.at_level(logging.INFO, "floodgate.worker"):
        under_ours(make, actor_name, {})
    (record,) = (record for record in caplog.records if "OtherError" in record.getMessage() or record.exc_info)
    assert record.levelno == level


# Middleware.


class Blocking(Middleware):
    """Blocks the loop, as a middleware does that queries a database."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self.threads: set[str] = set()

    def _wait(self) -> None:
        answered = threading.Event()
        assert self.loop is not None
        self.loop.call_soon_threadsafe(answered.set)
        assert answered.wait(5), "the loop waits for this, and so nobody answers"
        self.threads.add(threading.current_thread().name)

    def before_process_message(self, broker: Broker, message: Any) -> None:
        self._wait()

    def after_process_message(self, broker: Broker, message: Any, **_options: Any) -> None:
        self._wait()


def test_middleware_that_blocks_does_not_block_the_loop(make: Make) -> None:
    async def scene() -> None:
        blocking, done = Blocking(), asyncio.Event()
        blocking.loop = asyncio.get_running_loop()
        broker = make(blocking)

        @dramatiq.actor(queue_name=QUEUE, broker=broker)
        async def work() -> None:
            done.set()

        async with running(broker):
            await off_the_loop(work.send)
            await asyncio.wait_for(done.wait(), SOON_SECONDS)
            await soon(lambda: blocking.threads)
        assert threading.current_thread().name not in blocking.threads

    play(scene)


def test_concurrent_actors_each_see_their_own_message(make: Make) -> None:
    async def scene() -> None:
        broker, seen, all_here = make(), [], asyncio.Barrier(8)

        @dramatiq.actor(queue_name=QUEUE, broker=broker)
        async def look(n: int) -> None:
            await all_here.wait()
            message = CurrentMessage.get_current_message()
            assert message is not None
            seen.append((n, message.args[0]))

        async with running(broker, prefetch=8):
            for n in range(8):
                await off_the_loop(look.send, n)
            await soon(lambda: len(seen) == 8)
        assert all(given == found for given, found in seen)
        assert CurrentMessage.get_current_message() is None

    play(scene)


def test_failures_are_retried_and_the_last_one_leaves_a_dead_letter_with_its_traceback(
    make: Make, vhost: Vhost
) -> None:
    attempts: list[int] = []

    async def scene() -> None:
        broker = make()

        @dramatiq.actor(queue_name=QUEUE, broker=broker, max_retries=2, min_backoff=1, max_backoff=2)
        async def stumble() -> None:
            attempts.append(1)
            raise OtherError("over its own feet")

        async with running(broker):
            await off_the_loop(stumble.send)
            await soon(lambda: len(attempts) == 3)

    play(scene)
    [(properties, body)] = drain(vhost.url, f"dead.{QUEUE}")
    letter = read_dead_letter(f"dead.{QUEUE}", properties.message_id, properties.headers, body)
    assert (len(attempts), letter.reason) == (3, "failed")
    assert "OtherError: over its own feet" in letter.description


def test_callbacks_follow_a_success_and_a_failure(make: Make) -> None:
    heard: list[tuple[str, Any]] = []

    async def scene() -> None:
        broker = make(Callbacks())

        @dramatiq.actor(queue_name=QUEUE, broker=broker)
        async def succeeded(_message: dict[str, Any], result: int) -> None:
            heard.append(("succeeded", result))

        @dramatiq.actor(queue_name=QUEUE, broker=broker)
        async def failed(_message: dict[str, Any], error: dict[str, Any]) -> None:
            heard.append(("failed", error["type"]))

        @dramatiq.actor(queue_name=QUEUE, broker=broker, max_retries=0)
        async def divide(a: int, b: int) -> int:
            return a // b

        async with running(broker):
            for b in (2, 0):
                await off_the_loop(divide.send_with_options, args=(6, b), on_success=succeeded, on_failure=failed)
            await soon(lambda: len(heard) == 2)

    play(scene)
    assert sorted(heard) == [("failed", "ZeroDivisionError"), ("succeeded", 3)]


def test_results_are_stored_and_pipelines_continue(make: Make) -> None:
    async def scene() -> None:
        backend = StubBackend()
        broker = make(Results(backend=backend), Pipelines())

        @dramatiq.actor(queue_name=QUEUE, broker=broker, store_results=True)
        async def add(a: int, b: int) -> int:
            return a + b

        async with running(broker):
            pipe = dramatiq.pipeline([add.message(1, 2), add.message(10), add.message(100)], broker=broker)
            await off_the_loop(pipe.run)
            total = await off_the_loop(pipe.get_result, block=True, timeout=10_000)
        assert total == 113

    play(scene)


class Counting(Middleware):
    """Counts as Dramatiq's Prometheus middleware does."""

    def __init__(self) -> None:
        self.totals: Counter[str] = Counter()
        self._started: dict[str, bool] = {}

    def before_process_message(self, broker: Broker, message: Any) -> None:
        self.totals["in progress"] += 1
        self._started[message.message_id] = True

    def after_process_message(self, broker: Broker, message: Any, *, exception: Any = None, **_options: Any) -> None:
        self.totals["in progress"] -= 1
        assert self._started.pop(message.message_id)
        self.totals["messages"] += 1
        self.totals["errors"] += exception is not None

    after_skip_message = after_process_message

    def after_nack(self, broker: Broker, message: Any) -> None:
        self.totals["rejected"] += 1


def test_a_counting_middleware_gets_the_right_figures(make: Make) -> None:
    async def scene() -> None:
        counting = Counting()
        broker = make(counting)
        declare_actors(broker)
        async with running(broker):
            for actor_name in ("fine", "failing", "fine"):
                await off_the_loop(broker.enqueue, message_for(actor_name))
            await soon(lambda: counting.totals["messages"] == 3 and counting.totals["rejected"])
        assert counting.totals == {"messages": 3, "errors": 1, "rejected": 1, "in progress": 0}

    play(scene)


class Gate(AwaitedMiddleware):
    """Holds each message until the test releases it."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.held = 0
        self.life: list[str] = []

    def concerns(self, message: Any) -> bool:
        return True

    async def abefore_worker_boot(self, broker: FloodgateBroker) -> None:
        self.life.append("boot")

    async def abefore_process_message(self, broker: FloodgateBroker, message: Any) -> None:
        self.held += 1
        await self.open.wait()

    async def aafter_worker_shutdown(self, broker: FloodgateBroker) -> None:
        self.life.append("shutdown")


def test_an_awaited_middleware_delays_only_its_own_message(make: Make) -> None:
    async def scene() -> None:
        gate, done = Gate(), 0
        broker = make(gate)

        @dramatiq.actor(queue_name=QUEUE, broker=broker)
        async def work() -> None:
            nonlocal done
            done += 1

        async with running(broker, prefetch=4):
            for _ in range(4):
                await off_the_loop(work.send)
            await soon(lambda: gate.held == 4)
            assert done == 0
            gate.open.set()
            await soon(lambda: done == 4)
        assert gate.life == ["boot", "shutdown"]

    play(scene)


# Messages that cannot be run.


def test_bytes_that_are_not_a_message_become_a_dead_letter_and_the_next_message_runs(make: Make, vhost: Vhost) -> None:
    async def scene() -> None:
        broker, done = make(), asyncio.Event()

        @dramatiq.actor(queue_name=QUEUE, broker=broker)
        async def work() -> None:
            done.set()

        async with running(broker):
            await broker.connections.publisher.apublish(Publication("", QUEUE, b"\xff", "strange"))
            await off_the_loop(work.send)
            await asyncio.wait_for(done.wait(), SOON_SECONDS)

    play(scene)
    assert [body for _, body in drain(vhost.url, "dead.malformed")] == [b"\xff"]
    assert drain(vhost.url, QUEUE) == []


def test_a_message_for_a_synchronous_actor_becomes_a_dead_letter_that_says_where_to_run_it(
    make: Make, vhost: Vhost
) -> None:
    async def scene() -> None:
        events: list[Event] = []
        broker = make(Recorder("only", events))

        @dramatiq.actor(queue_name=QUEUE, broker=broker)
        def plain() -> None:
            raise AssertionError("it would block the loop")

        async with running(broker):
            await off_the_loop(plain.send)
            await soon(lambda: "after_nack" in [hook for _, hook, _ in events])

    play(scene)
    [(properties, _)] = drain(vhost.url, f"dead.{QUEUE}")
    assert properties.headers["x-floodgate-reason"] == "no-actor"


# Stopping.


def test_running_actors_get_time_to_finish(make: Make, vhost: Vhost) -> None:
    async def scene() -> None:
        broker, begun, go_on, ended = make(), asyncio.Event(), asyncio.Event(), asyncio.Event()

        @dramatiq.actor(queue_name=QUEUE, broker=broker)
        async def work() -> None:
            begun.set()
            await go_on.wait()
            ended.set()

        async with running(broker) as runner:
            await off_the_loop(work.send)
            await off_the_loop(work.send)
            await asyncio.wait_for(begun.wait(), SOON_SECONDS)
            stopping = asyncio.create_task(runner.stop(30))
            await asyncio.sleep(0.1)
            assert not stopping.done()
            go_on.set()
            await stopping
            assert ended.is_set()

    play(scene)
    assert len(drain(vhost.url, QUEUE)) == 1  # the second was not begun


def test_an_actor_that_does_not_finish_in_time_is_cancelled_and_its_message_requeued(make: Make, vhost: Vhost) -> None:
    cancelled: list[int] = []

    async def scene() -> None:
        broker, begun = make(), 0

        @dramatiq.actor(queue_name=QUEUE, broker=broker)
        async def hang(n: int) -> None:
            nonlocal begun
            begun += 1
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(n)
                raise

        async with running(broker, prefetch=3, stop_seconds=0.2):
            for n in range(5):
                await off_the_loop(hang.send, n)
            await soon(lambda: begun == 3)

    play(scene)
    assert sorted(cancelled) == [0, 1, 2]
    assert [json.loads(body)["args"] for _, body in drain(vhost.url, QUEUE)] == [[n] for n in range(5)]


def test_a_returned_message_pauses_only_its_queue(make: Make) -> None:
    """A deferral without a delay is returned after a second, and other queues continue meanwhile."""

    async def scene() -> None:
        arrivals: defaultdict[str, int] = defaultdict(int)

        class Deferring(Middleware):
            def before_process_message(self, broker: Broker, message: Any) -> None:
                arrivals[message.queue_name] += 1
                if message.queue_name == QUEUE:
                    raise DeferredError("later")

        broker = make(Deferring(), only=False)
        broker.middleware = [each for each in broker.middleware if not isinstance(each, ConfirmedRetries)]

        @dramatiq.actor(queue_name=QUEUE, broker=broker)
        async def later() -> None: ...

        @dramatiq.actor(queue_name="post", broker=broker)
        async def now() -> None: ...

        async with running(broker):
            await off_the_loop(later.send)
            await soon(lambda: arrivals[QUEUE] == 1)
            for _ in range(3):
                await off_the_loop(now.send)
            await soon(lambda: arrivals["post"] == 3)
            assert arrivals[QUEUE] == 1
            await soon(lambda: arrivals[QUEUE] == 2)

    play(scene)
