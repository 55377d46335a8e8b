"""Users' own actors on our broker with a stock `dramatiq.Worker`. Dramatiq's own tests are in tests/dramatiq_suite."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import dramatiq
import dramatiq.broker
import pytest
from dramatiq.broker import Broker, MessageProxy
from dramatiq.encoder import JSONEncoder, PickleEncoder
from dramatiq.middleware import CurrentMessage, Middleware, SkipMessage
from dramatiq.results import Results
from dramatiq.results.backends import StubBackend

from floodgate.broker.amqp import queue_admin, topology
from floodgate.broker.errors import PublishError, RejectedError
from floodgate.broker.messages import dead_letters, queue_names
from floodgate.broker.messages.job import SEND_ACTOR, new_job
from floodgate.broker.messages.publication import Publication
from floodgate.broker.settings.model import Settings
from floodgate.broker.worker.dramatiq_broker import FOR_PLAIN_ACTORS, FloodgateBroker, default_middleware
from tests.draining import drain
from tests.services import Vhost
from tests.waiting import until

TOKEN = "123456:" + "A" * 35
MakeBroker = Callable[..., FloodgateBroker]


@pytest.fixture
def make_broker(vhost: Vhost, tmp_path: Path) -> Iterator[MakeBroker]:
    with contextlib.ExitStack() as stack:

        def make(middleware: list[Middleware] | None = None) -> FloodgateBroker:
            settings = Settings(
                rabbitmq_url=vhost.url,
                state_url=f"sqlite:///{tmp_path}/state.db",
                bots=json.dumps({"b": TOKEN}),
                partitions=1,
                _env_file=None,
            )
            made = FloodgateBroker(settings, middleware=middleware)
            stack.callback(made.close)
            return made

        yield make


@pytest.fixture
def broker(make_broker: MakeBroker) -> FloodgateBroker:
    return make_broker()


@contextlib.contextmanager
def working(broker: FloodgateBroker, threads: int = 2, queues: set[str] | None = None) -> Iterator[dramatiq.Worker]:
    worker = dramatiq.Worker(broker, worker_timeout=100, worker_threads=threads, queues=queues)
    worker.start()
    try:
        yield worker
    finally:
        worker.stop(timeout=5000)


def ready(broker: FloodgateBroker, queue: str) -> int | None:
    return queue_admin.depth(broker.connections, [queue])[queue]


def letters(vhost: Vhost, queue: str) -> list[dead_letters.DeadLetter]:
    found = until(lambda: drain(vhost.url, queue))
    return [dead_letters.read_dead_letter(queue, each.message_id, each.headers, body) for each, body in found]


# Queues


def test_the_first_message_declares_its_queue(broker: FloodgateBroker) -> None:
    @dramatiq.actor(queue_name="mail", broker=broker)
    def note() -> None: ...

    note.send()
    assert ready(broker, "mail") == 1


def test_a_delayed_first_message_declares_its_queue(broker: FloodgateBroker) -> None:
    @dramatiq.actor(queue_name="mail", broker=broker)
    def note() -> None: ...

    broker.declare_queue("other", ensure=True)  # also declares the delay ladder, which accepts messages for any queue
    note.send_with_options(delay=timedelta(milliseconds=200))
    until(lambda: ready(broker, "mail") == 1)


def test_a_queue_is_declared_once_in_a_process(broker: FloodgateBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    @dramatiq.actor(queue_name="mail", broker=broker)
    def note() -> None: ...

    note.send()
    monkeypatch.setattr(queue_admin, "declare", lambda *_: pytest.fail("declared again"))
    note.send()


def test_a_deleted_queue_is_declared_again_by_the_next_message(broker: FloodgateBroker) -> None:
    @dramatiq.actor(queue_name="mail", broker=broker)
    def note() -> None: ...

    note.send()
    queue_admin.delete(broker.connections, ["mail"])
    note.send()
    assert ready(broker, "mail") == 1


def test_a_job_whose_queue_is_missing_is_refused(broker: FloodgateBroker) -> None:
    job = new_job("sendMessage", {"chat_id": 1, "text": "x"}, bot="b")
    message = dramatiq.Message[object](SEND_ACTOR, SEND_ACTOR, (), {"job": job.model_dump(mode="json")}, {})
    with pytest.raises(PublishError):
        broker.enqueue(message)


# Work


def test_a_worker_prefetches_one_message_per_thread(broker: FloodgateBroker) -> None:
    together = threading.Barrier(8)
    met = []

    @dramatiq.actor(queue_name="mail", broker=broker, max_retries=0)
    def meet() -> None:
        together.wait(10)
        met.append(True)

    for _ in range(8):
        meet.send()
    with working(broker, threads=8):
        until(lambda: len(met) == 8)


def test_the_messages_of_a_group_and_its_nested_groups_run_concurrently(broker: FloodgateBroker) -> None:
    broker.add_middleware(Results(backend=StubBackend()))
    together = threading.Barrier(6)

    @dramatiq.actor(queue_name="mail", broker=broker, max_retries=0, store_results=True)
    def meet(number: int) -> int:
        together.wait(10)
        return number

    inner = [dramatiq.group([meet.message(n), meet.message(n + 1)], broker=broker) for n in (0, 2, 4)]
    before = dramatiq.broker.global_broker
    dramatiq.set_broker(broker)  # a group within a group asks the global one for results
    try:
        with working(broker, threads=6):
            group = dramatiq.group(inner, broker=broker).run()
            assert [list(each) for each in group.get_results(block=True)] == [[0, 1], [2, 3], [4, 5]]
    finally:
        dramatiq.broker.global_broker = before


def test_a_worker_leaves_messages_its_threads_cannot_begin_to_other_workers(broker: FloodgateBroker) -> None:
    begun, go_on = threading.Semaphore(0), threading.Event()

    @dramatiq.actor(queue_name="mail", broker=broker)
    def wait() -> None:
        begun.release()
        go_on.wait(20)

    for _ in range(6):
        wait.send()
    with working(broker, threads=2):
        assert begun.acquire(timeout=10)
        assert begun.acquire(timeout=10)
        left = ready(broker, "mail")
        go_on.set()
    assert left == 4


def test_a_requested_prefetch_is_respected(broker: FloodgateBroker) -> None:
    worker = dramatiq.Worker(broker, worker_threads=4)
    worker.queue_prefetch = 1
    broker.emit_before("worker_boot", worker)
    broker.emit_after("worker_shutdown", worker)
    assert worker.queue_prefetch == 1


def test_a_high_priority_message_runs_before_earlier_ones(broker: FloodgateBroker) -> None:
    order = []

    @dramatiq.actor(queue_name="mail", broker=broker)
    def note(priority: int) -> None:
        order.append(priority)

    for priority in (0, 4, 5, 10):
        note.send_with_options(args=(priority,), broker_priority=priority)
    assert order == []
    with working(broker, threads=1):
        until(lambda: len(order) == 4)
    assert order[0] == 5
    assert order.index(10) < order.index(4)


def test_messages_have_one_of_two_broker_priorities(broker: FloodgateBroker, vhost: Vhost) -> None:
    @dramatiq.actor(queue_name="mail", broker=broker)
    def note(priority: int | None) -> None: ...

    for priority in (None, 0, 4, 5, 10):
        note.send_with_options(args=(priority,), broker_priority=priority)
    on_the_wire = {json.loads(body)["args"][0]: properties.priority for properties, body in drain(vhost.url, "mail")}
    assert on_the_wire == {None: 4, 0: 4, 4: 4, 5: 9, 10: 9}


# Encoders


@pytest.fixture
def encoder() -> Iterator[Callable[[dramatiq.Encoder], None]]:
    before = dramatiq.get_encoder()
    yield dramatiq.set_encoder
    dramatiq.set_encoder(before)


def test_plain_actors_use_the_global_encoder(
    broker: FloodgateBroker, encoder: Callable[[dramatiq.Encoder], None]
) -> None:
    encoder(PickleEncoder())
    got = []

    @dramatiq.actor(queue_name="mail", broker=broker)
    def take(value: object) -> None:
        got.append(value)

    take.send([{1, 2}, "\\ud800"])  # the text looks like half of a surrogate pair but is not
    with working(broker):
        until(lambda: got)
    assert got == [[{1, 2}, "\\ud800"]]


def test_jobs_are_json_with_any_global_encoder(
    broker: FloodgateBroker, vhost: Vhost, encoder: Callable[[dramatiq.Encoder], None]
) -> None:
    encoder(PickleEncoder())
    queue_admin.declare(broker.connections, topology.pipeline(["b"], 1))
    job = new_job("sendMessage", {"chat_id": 1, "text": "x"}, bot="b")
    queue_name = queue_names.send_queue("b", job.priority, 0)
    broker.enqueue(dramatiq.Message(SEND_ACTOR, SEND_ACTOR, (), {"job": job.model_dump(mode="json")}, {}))
    consumer = broker.consume(queue_name, timeout=5000)
    message = next(consumer)
    consumer.close()
    assert message is not None
    assert message.kwargs["job"]["id"] == job.id


def test_messages_the_encoder_cannot_read_go_to_dead_malformed(
    broker: FloodgateBroker, vhost: Vhost, encoder: Callable[[dramatiq.Encoder], None]
) -> None:
    class Choosy(JSONEncoder):
        def decode(self, data: bytes) -> dict[str, Any]:
            raise RuntimeError("not this")

    broker.declare_queue("mail", ensure=True)
    broker.connections.publisher.publish(Publication("", "mail", b"{}", "1"))
    encoder(Choosy())
    with working(broker):
        [letter] = letters(vhost, queue_names.MALFORMED_QUEUE)
    assert (letter.reason, letter.body, letter.queue) == (dead_letters.REASON_MALFORMED, b"{}", "mail")


# Messages that follow from a message


@contextlib.contextmanager
def full(vhost: Vhost, queue: str) -> Iterator[None]:
    """Makes RabbitMQ reject messages published to the queue once it contains one."""
    vhost.ctl("set_policy", "full", f"^{queue}$", '{"max-length":0}')
    try:
        yield
    finally:
        vhost.ctl("clear_policy", "full")


def is_full(broker: FloodgateBroker, queue: str) -> bool:
    try:
        broker.connections.publisher.publish(Publication("", queue, b"{}", "probe"))
    except RejectedError:
        return True
    return False


@pytest.mark.parametrize("follow", ["pipeline", "on_success"])
def test_a_message_is_not_acknowledged_if_publishing_its_successor_fails(
    broker: FloodgateBroker, vhost: Vhost, follow: str
) -> None:
    runs, followed = [], threading.Event()

    @dramatiq.actor(queue_name="mail", broker=broker)
    def first() -> None:
        runs.append(True)

    @dramatiq.actor(queue_name="next", broker=broker)
    def second(*_: object) -> None:
        followed.set()

    broker.declare_queue("next", ensure=True)
    with full(vhost, "next"):
        until(lambda: is_full(broker, "next"))
        if follow == "pipeline":
            dramatiq.pipeline([first.message(), second.message()], broker=broker).run()
        else:
            first.send_with_options(on_success=second)
        with working(broker, queues={"mail"}):
            until(lambda: len(runs) == 2)
    with working(broker):
        assert followed.wait(10)


def test_a_failed_message_is_requeued_if_publishing_its_callback_fails(broker: FloodgateBroker, vhost: Vhost) -> None:
    runs, told = [], threading.Event()

    @dramatiq.actor(queue_name="mail", broker=broker, max_retries=0, on_failure="tell")
    def fails() -> None:
        runs.append(True)
        raise LookupError("gone")

    @dramatiq.actor(queue_name="next", broker=broker)
    def tell(*_: object) -> None:
        told.set()

    broker.declare_queue("next", ensure=True)
    with full(vhost, "next"):
        until(lambda: is_full(broker, "next"))
        fails.send()
        with working(broker, queues={"mail"}):
            until(lambda: len(runs) == 2)
    with working(broker):
        assert told.wait(10)
    assert len(letters(vhost, "dead.mail")) == 1


@pytest.mark.parametrize(
    ("options", "reason", "description"),
    [
        ({"max_retries": 0}, dead_letters.REASON_FAILED, "LookupError: gone"),
        ({"throws": LookupError}, dead_letters.REASON_FAILED, "LookupError: gone"),
        ({"max_age": 1}, dead_letters.REASON_FAILED, "SkipMessage: Message age limit exceeded"),
    ],
)
def test_the_dead_letter_of_a_plain_message_describes_the_failure(
    broker: FloodgateBroker, vhost: Vhost, options: dict[str, Any], reason: str, description: str
) -> None:
    @dramatiq.actor(queue_name="mail", broker=broker, **options)
    def fails() -> None:
        raise LookupError("gone")

    fails.send_with_options(delay=100)
    with working(broker):
        [letter] = letters(vhost, "dead.mail")
    assert (letter.reason, letter.description) == (reason, description)
    assert ("in fails" in letter.traceback) == (description == "LookupError: gone")


def test_the_dead_letter_of_a_message_for_a_missing_actor_says_so(broker: FloodgateBroker, vhost: Vhost) -> None:
    broker.declare_queue("mail")
    broker.enqueue(dramatiq.Message("mail", "nobody", (), {}, {}))
    with working(broker):
        [letter] = letters(vhost, "dead.mail")
    assert (letter.reason, letter.description) == (
        dead_letters.REASON_NO_ACTOR,
        "no actor named 'nobody' in this worker",
    )


# Middleware


class Witness(Middleware):
    """Third-party middleware: records each signal."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def _note(self, what: str) -> None:
        self.seen.append(what)

    def before_worker_boot(self, *_: object) -> None:
        self._note("before_worker_boot")

    def after_worker_boot(self, *_: object) -> None:
        self._note("after_worker_boot")

    def before_worker_shutdown(self, *_: object) -> None:
        self._note("before_worker_shutdown")

    def after_worker_shutdown(self, *_: object) -> None:
        self._note("after_worker_shutdown")

    def after_worker_thread_boot(self, *_: object) -> None:
        self._note("after_worker_thread_boot")

    def before_worker_thread_shutdown(self, *_: object) -> None:
        self._note("before_worker_thread_shutdown")

    def after_consumer_thread_boot(self, *_: object) -> None:
        self._note("after_consumer_thread_boot")

    def before_consumer_thread_shutdown(self, *_: object) -> None:
        self._note("before_consumer_thread_shutdown")

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        self._note("before_process_message")
        if message.args == ("skip",):
            raise SkipMessage("not today")

    def after_process_message(
        self, broker: Broker, message: MessageProxy, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        self._note(f"after_process_message {result!r} {exception!r}")

    def after_skip_message(self, *_: object) -> None:
        self._note("after_skip_message")

    def before_ack(self, *_: object) -> None:
        self._note("before_ack")

    def after_ack(self, *_: object) -> None:
        self._note("after_ack")

    def before_nack(self, *_: object) -> None:
        self._note("before_nack")

    def after_nack(self, *_: object) -> None:
        self._note("after_nack")


@pytest.mark.parametrize(
    ("word", "of_the_message"),
    [
        ("return", ["after_process_message 7 None", "before_ack", "after_ack"]),
        ("raise", ["after_process_message None LookupError('gone')", "before_nack", "after_nack"]),
        ("skip", ["after_skip_message", "before_ack", "after_ack"]),
    ],
)
def test_third_party_middleware_gets_every_signal_of_a_message_and_its_worker(
    broker: FloodgateBroker, word: str, of_the_message: list[str]
) -> None:
    witness = Witness()
    broker.add_middleware(witness)

    @dramatiq.actor(queue_name="mail", broker=broker, max_retries=0)
    def work(word: str) -> int:
        if word == "raise":
            raise LookupError("gone")
        return 7

    work.send(word)
    with working(broker, threads=1):
        until(lambda: of_the_message[-1] in witness.seen)
    boot = ["before_worker_boot", "after_worker_boot", "after_worker_thread_boot", "after_consumer_thread_boot"]
    end = [
        "before_worker_shutdown",
        "before_worker_thread_shutdown",
        "before_consumer_thread_shutdown",
        "after_worker_shutdown",
    ]
    assert [each for each in witness.seen if each not in boot + end] == ["before_process_message", *of_the_message]
    assert [each for each in witness.seen if each in end] == end
    assert sorted(each for each in witness.seen if each in boot) == sorted(boot)
    assert witness.seen[0] == "before_worker_boot"


def test_middleware_for_plain_actors_ignores_jobs_and_updates(make_broker: MakeBroker) -> None:
    class Refuses(Middleware):
        def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
            pytest.fail("asked")

        after_skip_message = before_process_message

        def after_process_message(self, broker: Broker, message: MessageProxy, **_: Any) -> None:
            pytest.fail("told")

    kinds = [type(kind.__name__, (Refuses, kind), {})() for kind in FOR_PLAIN_ACTORS]
    witness = Witness()
    broker = make_broker([*kinds, witness])
    for actor_name in ("send", "handle_update"):
        message = dramatiq.Message[object](actor_name, actor_name, (), {}, {})
        broker.emit_before("process_message", message)
        broker.emit_after("process_message", message, result=None)
        broker.emit_after("skip_message", message)
    assert witness.seen == ["before_process_message", "after_process_message None None", "after_skip_message"] * 2


def test_the_default_middleware_includes_dramatiqs_own() -> None:
    kinds = [type(each) for each in default_middleware()]
    missing = [kind for kind in dramatiq.middleware.default_middleware if not any(issubclass(k, kind) for k in kinds)]
    assert missing == []


def test_async_actors_can_access_their_message(broker: FloodgateBroker) -> None:
    known = []

    @dramatiq.actor(queue_name="mail", broker=broker)
    async def note() -> None:
        message = CurrentMessage.get_current_message()
        known.append(message and message.message_id)

    sent = note.send()
    with working(broker):
        until(lambda: known)
    assert known == [sent.message_id]


# For tests


def test_flush_drops_ready_messages_and_dead_letters(broker: FloodgateBroker) -> None:
    @dramatiq.actor(queue_name="mail", broker=broker, max_retries=0)
    def fails() -> None:
        raise LookupError

    fails.send()
    with working(broker):
        until(lambda: broker.get_queue_message_counts("mail") == (0, 0, 1))
    fails.send()
    fails.send_with_options(delay=60_000)
    assert broker.get_queue_message_counts("mail") == (1, 1, 1)
    broker.flush_all()
    assert broker.get_queue_message_counts("mail") == (0, 1, 0)


def test_jobs_are_not_flushed(broker: FloodgateBroker) -> None:
    queue_admin.declare(broker.connections, topology.pipeline(["b"], 1))
    broker.declare_queue(SEND_ACTOR)
    job = new_job("sendMessage", {"chat_id": 1, "text": "x"}, bot="b")
    broker.enqueue(dramatiq.Message(SEND_ACTOR, SEND_ACTOR, (), {"job": job.model_dump(mode="json")}, {}))
    broker.flush_all()
    for name in (SEND_ACTOR, queue_names.send_queue("b", job.priority, 0)):
        with pytest.raises(ValueError, match="holds jobs or updates"):
            broker.flush(name)
    assert broker.get_queue_message_counts(SEND_ACTOR) == (1, 0, 0)


def test_join_waits_for_messages_delayed_by_this_process(broker: FloodgateBroker) -> None:
    @dramatiq.actor(queue_name="mail", broker=broker)
    def note() -> None: ...

    started = time.monotonic()
    note.send_with_options(delay=500)
    with working(broker) as worker:
        broker.join("mail", min_successes=1, idle_time=10)
        worker.join()
    assert time.monotonic() - started >= 0.5


def test_join_raises_at_its_timeout(broker: FloodgateBroker) -> None:
    @dramatiq.actor(queue_name="mail", broker=broker)
    def note() -> None: ...

    note.send()
    with pytest.raises(dramatiq.QueueJoinTimeout):
        broker.join("mail", timeout=50)
